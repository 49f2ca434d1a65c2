"""Settings of `distill` and `score-relevance`.

Imports pydantic only, no torch and no Ray: the command line loads this module before it runs a job.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from prectr.contracts.model_config import DistillationLossConfig, EncoderConfig
from prectr.core.config import Execution, FrozenConfig
from prectr.core.ray_session import WorkerConfig


class DistillConfig(WorkerConfig):
    """Settings of `distill`, which trains the student encoder on judgments and teacher labels."""

    encoder: EncoderConfig = EncoderConfig()
    """Shape of the student encoder: layers, width, vocabulary and sequence length."""
    loss: DistillationLossConfig = DistillationLossConfig()
    """Weights of the parts of the distillation loss."""
    epochs: int = Field(6, ge=1)
    """Passes over the training pairs, at most; see `patience`."""
    patience: int = Field(3, ge=1)
    """Epochs without a better validation loss before training stops. The best epoch is kept."""
    batch_size: int = Field(128, ge=2)
    """Pairs in one optimiser step."""
    group_size: int = Field(8, ge=1)
    """Pairs of one query that stay together in a batch, at most. The margin loss compares them with each other."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW, in a one-cycle schedule."""
    weight_decay: float = Field(0.05, ge=0)
    """Weight decay of AdamW on all weights."""
    warm_up: float = Field(0.1, ge=0, lt=1)
    """Share of the training steps in which the learning rate rises to its peak."""
    negatives: float = Field(0.35, ge=0)
    """Random pairs of a query and an item of the catalogue for each judged pair. They count as judged irrelevant, and
    show the student what no log shows."""
    calibrate: bool = True
    """Calibrate the level probabilities on judged and random validation pairs, mixed as among the candidates that were
    not shown."""
    mark_dropout: float = Field(0.2, ge=0, le=1)
    """Share of the training pairs whose matches are not marked. They also train a plain head, which reads no match
    features: `prectr export --plain` writes it."""
    plain_weight: float = Field(0.5, ge=0)
    """Weight of the loss of the plain head."""
    token_dropout: float = Field(0.15, ge=0, lt=1)
    """Share of the tokens that are masked at random in training. Keeps the student from memorising a small set of
    queries."""
    match_marks: bool = True
    """Mark exact matches of query and title in the token types. A small student with little text hardly learns without
    them which words are equal."""
    max_seconds: float = Field(600.0, gt=0)
    """Time limit in seconds: training stops after the epoch that passes it and keeps the best epoch so far. A safety
    net only, because a limit that takes effect makes the result depend on the machine."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the forward pass. `auto`: bfloat16 where the processor has AMX, else float32."""
    int8: bool = False
    """Also write an int8 version of the encoder, and of the encoder that `train` tunes from it. The manifest and the
    model card state its loss of quality."""
    seed: int = 17
    """Seed of the weights, the order of batches and token dropout."""


class ScoreConfig(FrozenConfig):
    """Settings of `score-relevance`, which scores every distinct pair with the encoder."""

    actors: Execution[int | tuple[int, int]] = 2
    """Actors that score in parallel. Two numbers, e.g. [1, 8], are the fewest and the most: Ray adds actors while work
    waits and the cluster has room."""
    threads: Execution[int] = Field(1, ge=1)
    """ONNX Runtime threads of one actor."""
    cpus: Execution[float] = Field(1, gt=0)
    """CPUs that Ray reserves for one actor."""
    memory_gib: Execution[float | None] = Field(None, gt=0)
    """Memory in GiB that Ray reserves for one actor. null reserves none."""
    int8: bool = False
    """Score with the int8 version of the encoder, which `distill.int8` writes. The encoder's manifest states its loss
    of quality."""
    block_pairs: int = Field(8192, ge=1)
    """Pairs that an actor gets at once; also the most rows of one output file."""
    batch_size: int = Field(256, ge=1)
    """Pairs in one call of the encoder, at most."""
    look_up: bool = True
    """Use a pair's judgment or teacher label, where there is one, instead of the encoder's score. For judgments of
    queries that are held back from training see `held_back_judgments`."""
    first: Literal["measured", "teacher", "encoder"] = "measured"
    """Whose levels a pair gets that has a teacher's label and no judgment. `measured`: those of teacher or encoder,
    whichever has the better log-likelihood of human grades on the held-back judged pairs that the teacher labelled;
    the teacher's if there are fewer than 50 of these pairs."""
    held_back_judgments: bool = False
    """Also use the judgments of queries that are held back from training. The ranker is then given these grades, so
    `evaluate` leaves out its figures on human grades. True is for a final ranker, after its settings were chosen."""
    judgment_confidence: float = Field(0.97, gt=0.25, le=1)
    """Probability that a judgment gives its own grade. The rest is spread evenly over the other levels."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 1 <= self.least_actors <= self.most_actors:
            raise ValueError(f"actors must be a number of at least 1, or [fewest, most] in order; got {self.actors}")
        return self

    @property
    def least_actors(self) -> int:
        """The fewest actors."""
        return self.actors if isinstance(self.actors, int) else self.actors[0]

    @property
    def most_actors(self) -> int:
        """The most actors."""
        return self.actors if isinstance(self.actors, int) else self.actors[1]

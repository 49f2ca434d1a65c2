"""Configuration of `distill` and `score-relevance`. Pydantic only: the command line imports this."""

from typing import Literal, Self

from pydantic import Field, model_validator

from prectr.contracts.model_config import DistillationLossConfig, EncoderConfig
from prectr.core.config import Execution, FrozenConfig
from prectr.core.ray_session import WorkerConfig


class DistillConfig(WorkerConfig):
    """How `distill` trains the student encoder on gold and teacher labels."""

    encoder: EncoderConfig = EncoderConfig()
    loss: DistillationLossConfig = DistillationLossConfig()
    epochs: int = Field(6, ge=1)
    patience: int = Field(3, ge=1)
    """Epochs without a better validation loss before training stops."""
    batch_size: int = Field(128, ge=2)
    group_size: int = Field(8, ge=1)
    """Pairs of one query that are kept together in a batch, so that the margin loss has something to compare."""
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warm_up: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    token_dropout: float = Field(0.15, ge=0, lt=1)
    """Share of the tokens that are masked in training, so that few queries are not learnt by heart."""
    match_marks: bool = True
    """Mark exact matches in the token types. Without them other libraries read the encoder without `mark_matches`
    (`prectr.relevance.cross_encoder`), but a small student hardly learns from little text which words are the same."""
    max_seconds: float = Field(600.0, gt=0)
    """Training stops after the epoch that passes this limit; the best epoch so far is kept. A safety net only: a limit
    that bites makes the result depend on the machine."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 where the processor has AMX, else float32."""
    int8: bool = False
    """Also leave an int8 form of the encoder, and of what `train` tunes from it; the manifest and the model card say
    what it costs in quality."""
    seed: int = 17


class ScoreConfig(FrozenConfig):
    """How `score-relevance` scores every distinct pair."""

    actors: Execution[int | tuple[int, int]] = 2
    """Two numbers are the fewest and the most, as many as there is work and room for."""
    threads: Execution[int] = Field(1, ge=1)
    """ONNX Runtime threads of one actor."""
    cpus: Execution[float] = Field(1, gt=0)
    """CPUs of one actor."""
    memory_gib: Execution[float | None] = Field(None, gt=0)
    """Memory that Ray sets aside for one actor; null: not counted."""
    int8: bool = False
    """Score with the int8 form that `distill.int8` left; its manifest says what that costs in quality."""
    block_pairs: int = Field(8192, ge=1)
    """Pairs of one block of work; also rows of one output file at most."""
    batch_size: int = Field(256, ge=1)
    """Pairs of one call of the encoder."""
    look_up: bool = True
    """A judgment or a teacher's label of the very pair outranks the encoder's score."""
    judgment_confidence: float = Field(0.97, gt=0.25, le=1)
    """Probability that a judgment puts on its own grade; the rest is spread over the other levels."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 1 <= self.least_actors <= self.most_actors:
            raise ValueError(f"actors must be at least 1, the fewest before the most, got {self.actors}")
        return self

    @property
    def least_actors(self) -> int:
        """How many there are at least."""
        return self.actors if isinstance(self.actors, int) else self.actors[0]

    @property
    def most_actors(self) -> int:
        """How many there are at most."""
        return self.actors if isinstance(self.actors, int) else self.actors[1]

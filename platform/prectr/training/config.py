"""Settings of `train`."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from prectr.contracts.model_config import ModelConfig
from prectr.core.config import Execution, FrozenConfig
from prectr.core.mirror import LocalOrUri
from prectr.core.ray_session import WorkerConfig


class TrackingConfig(FrozenConfig):
    """Where figures go besides the learning curve of the artifact."""

    tensorboard: Path | None = None
    """A folder for event files; each run writes its own below it."""
    mlflow: str | None = None
    """An MLflow tracking URI."""
    experiment: str = "prectr"
    """The MLflow experiment."""


class TrainConfig(WorkerConfig):
    """How a ranker is trained on samples (stage 2: clicks; stage 1 is the distillation of its encoder)."""

    model: ModelConfig = ModelConfig()
    start_from: LocalOrUri | None = None
    """A bundle whose weights training starts from, on samples with its feature specification; it then learns only from
    days that this bundle has not learnt from. Null: new weights, and all days."""
    epochs: int = Field(2, ge=1)
    batch_size: int = Field(1024, ge=2)
    """Rows of one step over all workers."""
    pair_rows: int = Field(32, ge=1)
    """Rows of one pair of query and item that meet in a batch, whose text is then encoded once; 1 shuffles rows."""
    rows_in_memory: int = Field(8_000_000, ge=1)
    """Rows that a worker holds; a larger log is read in shards of random files, in another order each epoch."""
    learning_rate: float = Field(5e-3, gt=0)
    encoder_scale: float = Field(0.02, gt=0)
    """Encoder and RSL module learn at this share of the rate [ours]; faster, clicks wash out what levels mean."""
    weight_decay: float = Field(1e-4, ge=0)
    warm_up: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises; it then falls as a cosine."""
    clip_norm: float = Field(5.0, gt=0)
    evaluations_per_epoch: int = Field(3, ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the encoder. `auto`: bfloat16 on a GPU and where the processor multiplies it in hardware."""
    text_batch: int = Field(48, ge=1)
    """Pairs the encoder sees at once; pairs of similar length go together. Few fit a processor's cache and need hardly
    any padding; a GPU wants more."""
    workers: int | tuple[int, int] = 1
    """Ray Train workers; two numbers are the fewest and the most, as many as the cluster has room for. Each draws its
    own dropout, so that another number is another result, as another seed is."""
    checkpoint_steps: Execution[int] = Field(500, ge=1)
    """Steps between checkpoints; a run that was killed goes on from the last one."""
    restarts: Execution[int] = Field(3, ge=0)
    """How often a run goes on after a worker died."""
    tracking: Execution[TrackingConfig] = TrackingConfig()
    seed: int = 17

    @model_validator(mode="after")
    def _check(self) -> Self:
        counts = self.workers if isinstance(self.workers, tuple) else (self.workers, self.workers)
        if not 1 <= counts[0] <= counts[1]:
            raise ValueError(f"workers must be at least 1, the fewest before the most, got {self.workers}")
        return self

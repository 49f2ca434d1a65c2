"""Settings of `train`. Pydantic only, because the command line imports this module."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from prectr.contracts.model_config import ModelConfig
from prectr.core.config import Execution, FrozenConfig
from prectr.core.mirror import LocalOrUri
from prectr.core.ray_session import WorkerConfig


class TrackingConfig(FrozenConfig):
    """Trackers of training metrics, in addition to the learning curve in the artifact."""

    tensorboard: Path | None = None
    """Folder of TensorBoard event files; each run writes to its own subfolder. Null: no TensorBoard."""
    mlflow: str | None = None
    """MLflow tracking URI; needs the extra `prectr[mlflow]`. Null: no MLflow."""
    experiment: str = "prectr"
    """Name of the MLflow experiment; it is created if it does not exist."""


class TrainConfig(WorkerConfig):
    """Training of a ranker on samples (stage 2: clicks; stage 1 distills the ranker's encoder)."""

    model: ModelConfig = ModelConfig()
    """Ranker to train: its name and the settings of its parts."""
    start_from: LocalOrUri | None = None
    """Bundle whose weights training starts from. The samples must have its feature specification, and training uses
    only the days after its training days. Null: random weights and all training days."""
    epochs: int = Field(2, ge=1)
    """Passes over the training rows."""
    batch_size: int = Field(1024, ge=2)
    """Rows of one training step, over all workers."""
    pair_rows: int = Field(32, ge=1)
    """Most rows of one pair of query and item that are shuffled as one piece. They share a batch, which encodes the
    pair's text once. 1 shuffles single rows, as always for a ranker that encodes no text while it is trained."""
    rows_in_memory: int = Field(8_000_000, ge=1)
    """Sample rows that a worker holds in memory. More rows are read in shards of random files, in a new order each
    epoch."""
    learning_rate: float = Field(5e-3, gt=0)
    """Peak learning rate of the ranker; see `warm_up` for its course."""
    encoder_scale: float = Field(0.02, gt=0)
    """Learning rate of the encoder and the RSL module, as a share of `learning_rate` [ours]. At higher rates clicks
    overwrite the meaning of relevance levels."""
    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay of AdamW. Large ID tables have none."""
    warm_up: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises to its peak; it then falls to 0 as a cosine."""
    clip_norm: float = Field(5.0, gt=0)
    """Largest norm of the dense gradients of a step; larger gradients are scaled down to it."""
    evaluations_per_epoch: int = Field(3, ge=1)
    """Validations in each epoch, the last at its end. The best state by validation is kept."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the encoder. `auto`: bfloat16 on a GPU and on a CPU that multiplies it in hardware."""
    text_batch: int = Field(48, ge=1)
    """Pairs of query and title in one call of the encoder, sorted by length. Small batches fit a CPU's cache and need
    little padding; a GPU is faster with larger ones."""
    workers: int | tuple[int, int] = 1
    """Ray Train workers. Two numbers are the fewest and the most: the run takes as many as the cluster has room for.
    Each worker draws its own dropout, so the number of workers changes the result as a seed does."""
    checkpoint_steps: Execution[int] = Field(500, ge=1)
    """Steps between checkpoints. A killed run resumes from the last checkpoint."""
    restarts: Execution[int] = Field(3, ge=0)
    """Number of times that a run resumes after a worker died."""
    tracking: Execution[TrackingConfig] = TrackingConfig()
    """Trackers of training metrics: TensorBoard and MLflow."""
    seed: int = 17
    """Seed of the initial weights, dropout and the order of rows."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        counts = self.workers if isinstance(self.workers, tuple) else (self.workers, self.workers)
        if not 1 <= counts[0] <= counts[1]:
            raise ValueError(f"workers must be at least 1, with the fewest before the most, got {self.workers}")
        return self

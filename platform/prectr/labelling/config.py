"""Configuration of the teacher stages, `train-teacher` and `label`. Pydantic only: the command line imports this."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from prectr.configuration import FrozenConfig

Engine = Literal["auto", "vllm", "transformers"]


class TeacherConfig(FrozenConfig):
    """How `train-teacher` fits a causal language model to the judged training queries."""

    prompt: str = "relevance_v1"
    """Name of a template in `prectr/labelling/prompts/`, or a path to a template file."""
    base_model: str | None = None
    """A Hugging Face checkpoint to start from; None trains the small model below from scratch."""
    vocabulary: int = Field(4096, ge=300)
    width: int = Field(64, ge=8)
    layers: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    feed_forward: int = Field(192, ge=8)
    max_length: int = Field(192, ge=32)
    """Tokens of a whole prompt; a longer title is cut."""
    warm_start_pairs: int = Field(8000, ge=0)
    """Pairs made from the catalogue alone that are seen once before the judged ones (see `relevance/warm_start.py`)."""
    epochs: int = Field(5, ge=1)
    patience: int = Field(3, ge=1)
    """Epochs without a better validation loss before training stops."""
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.2, ge=0)
    warm_up: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Of the attention weights."""
    token_dropout: float = Field(0.12, ge=0, lt=1)
    """Share of the prompt's own tokens that are blanked in training, so that few queries are not learnt by heart."""
    max_seconds: float = Field(600.0, gt=0)
    """Training stops after the epoch that passes this limit; the best epoch so far is kept. A safety net only: a limit
    that bites makes the result depend on the machine."""
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    """`auto`: bfloat16 where the processor has AMX, else float32. At the default width the casts cost more than AMX
    saves; use `auto` for a `base_model`."""
    cpus: int = Field(2, ge=1)
    """Torch threads of the training worker."""
    seed: int = 17


class LabelConfig(FrozenConfig):
    """Which pairs `label` asks the teacher about, and how."""

    budget: int = Field(9000, ge=0)
    """Distinct pairs to label in all, the judged validation and held-back pairs included."""
    unexposed_share: float = Field(0.4, ge=0, le=1)
    """Share of the pairs beyond the judged ones that is taken from unexposed candidates."""
    prompt: str = "relevance_v1"
    engine: Engine = "auto"
    ledger: Path | None = None
    """Directory of the label ledger; None: `label-ledger` beside the artifact. It survives failed runs."""
    shard_rows: int = Field(2000, ge=1)
    """Labels are committed to the ledger in shards of this many."""
    max_length: int = Field(192, ge=32)
    batch_size: int = Field(64, ge=1)
    data_type: Literal["bfloat16", "float32", "auto"] = "bfloat16"
    max_error_share: float = Field(0.01, ge=0, le=1)
    """More failed rows than this share fail the stage; fewer go to `errors.parquet`."""
    calibrate: bool = True
    seed: int = 17

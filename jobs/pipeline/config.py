"""Settings of `pipeline`: the whole chain as one job, and its daily mode."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from prectr.contracts.model_config import ModelName
from prectr.core.config import FrozenConfig
from prectr.core.mirror import LocalOrUri


class DailyConfig(FrozenConfig):
    """Settings of `pipeline --daily`, which processes a new day."""

    models: LocalOrUri | None = None
    """File of the served models, which `serve --models` watches; null: `models.yaml` in the workspace."""
    questions: int = Field(500, ge=1)
    """Questions to the teacher a day, about pairs of the new days."""
    epochs: int = Field(1, ge=1)
    """Passes over the days that the served model was not trained on."""
    learning_rate_share: float = Field(0.3, gt=0)
    """Share of `train.learning_rate` that the daily training uses; a warm start needs less."""
    metric: Literal["auc", "gauc", "gauc_request", "auc_free", "gauc_free", "logloss"] = "auc"
    """Metric that compares the new model with the served one on the newest day."""
    margin: float = Field(0.002, ge=0)
    """Largest loss of the metric at which a model is accepted, unless the interval shows that it is worse."""
    ramp: tuple[float, ...] = (0.05, 0.2, 0.5)
    """Shares of the users who get a new model, one step a day; after the last step everybody gets it."""

    @field_validator("ramp")
    @classmethod
    def _rising(cls, ramp: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < share <= 1 for share in ramp) or list(ramp) != sorted(set(ramp)):
            raise ValueError(f"ramp {list(ramp)} must be rising shares above 0 and at most 1")
        return ramp


class PipelineConfig(FrozenConfig):
    """Settings of `pipeline`, from a log to judged rankers in one workspace."""

    workspace: LocalOrUri = Path("workspace")
    """Directory or URI of all artifacts; with several nodes, on storage that all of them share."""
    source: LocalOrUri | None = None
    """Log to validate and use; null: the built-in marketplace (`simulate`)."""
    teacher: str | None = None
    """Checkpoint, name of a model on the hub, or URL of a server; null: a teacher is trained on the log's judgments."""
    rankers: tuple[ModelName, ...] = Field(("wide-deep", "prectr", "prectr-v2"), min_length=1)
    """Models to train and compare on the test day; the last one is published."""
    publish: str | None = None
    """Directory or redis://HOST:PORT/DB where the last ranker's state is published; null: it is not published."""
    daily: DailyConfig = DailyConfig()

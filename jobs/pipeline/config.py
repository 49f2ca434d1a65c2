"""Configuration of the whole chain as one job. Pydantic only: the command line imports this."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from prectr.contracts.model_config import ModelName
from prectr.core.config import FrozenConfig
from prectr.core.mirror import LocalOrUri


class DailyConfig(FrozenConfig):
    """What `pipeline --daily` does with a new day."""

    models: LocalOrUri | None = None
    """The file that `serve --models` watches; null: `models.yaml` in the workspace."""
    questions: int = Field(500, ge=1)
    """For the teacher, about pairs that came with the new days."""
    epochs: int = Field(1, ge=1)
    """Over the days that the model served has not learnt from."""
    learning_rate_share: float = Field(0.3, gt=0)
    """Of `train.learning_rate`: a warm start needs less."""
    metric: Literal["auc", "gauc", "gauc_request", "auc_free", "gauc_free", "logloss"] = "auc"
    """By which the new model is compared with the one served, on the newest day."""
    margin: float = Field(0.002, ge=0)
    """How much may be lost where the two cannot be told apart; what is told apart as worse is never let in."""
    ramp: tuple[float, ...] = (0.05, 0.2, 0.5)
    """Shares of the users, a step a day; after the last one everybody gets the new model."""

    @field_validator("ramp")
    @classmethod
    def _rising(cls, ramp: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < share <= 1 for share in ramp) or list(ramp) != sorted(set(ramp)):
            raise ValueError(f"ramp {list(ramp)} must be rising shares above 0 and at most 1")
        return ramp


class PipelineConfig(FrozenConfig):
    """From a log to judged rankers in one workspace."""

    workspace: LocalOrUri = Path("workspace")
    """Where the artifacts go; on storage that all nodes share, if there are several."""
    source: LocalOrUri | None = None
    """A log of yours to validate; null: the built-in marketplace (`simulate`)."""
    teacher: str | None = None
    """A checkpoint, a model's name on the hub or a server's URL; null: one is trained on the log's judgments."""
    rankers: tuple[ModelName, ...] = Field(("wide-deep", "prectr", "prectr-v2"), min_length=1)
    """Models that are trained and compared on the test day; the last one is published."""
    publish: str | None = None
    """Where the last ranker's state is published: a directory, or redis://HOST:PORT/DB; null: nowhere."""
    daily: DailyConfig = DailyConfig()

"""Configuration of the whole chain as one job. Pydantic only: the command line imports this."""

from pathlib import Path

from pydantic import Field

from prectr.configuration import FrozenConfig
from prectr.mirror import LocalOrUri
from prectr.model_config import ModelName


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

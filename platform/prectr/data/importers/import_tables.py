"""Publication of an imported source as an artifact, with the checks and the quarantine of `prectr validate`."""

from pathlib import Path

from prectr.core import progress
from prectr.core.artifacts import StageResult
from prectr.core.config import FrozenConfig
from prectr.data.config import ValidateConfig
from prectr.data.importers.config import ImportConfig
from prectr.data.publish import publish_source
from prectr.data.source import Source


class _Decisions(FrozenConfig):
    """All settings that decide the result of an import; part of the artifact's identity."""

    importing: ImportConfig
    """Settings of the sources."""
    validation: ValidateConfig
    """Rules and limits for rows."""


def import_tables(
    source: Source, path: Path, out: Path, *, config: ImportConfig, validation: ValidateConfig, force: bool = False
) -> StageResult:
    """Publish a source as canonical tables at `out`. Bad rows go to `quarantine/` beside it.

    Raises:
        PrectrError: a file cannot be read, a table has no rows, or it has too many bad rows.
        UsageError: a file does not exist.
    """
    if "impressions" not in source.tables:
        progress.say("  no impressions: use it for train-teacher, label and distill, or as a catalogue of simulate")
    decisions = _Decisions(importing=config, validation=validation)
    return publish_source("import", source, path, out, config=decisions, validation=validation, force=force)

"""validate: a user's log, checked and published as canonical tables; bad rows go to quarantine."""

import tempfile
from pathlib import Path

from prectr.core.artifacts import StageResult
from prectr.data.config import ValidateConfig
from prectr.data.validate import validate_tables


def run(*, source: Path, out: Path | None, config: ValidateConfig, force: bool = False) -> StageResult:
    """Validate the log below `source`; publish clean tables at `out`, or only check it where `out` is None."""
    if out is not None:
        return validate_tables(source, out, config, force)
    with tempfile.TemporaryDirectory(prefix="prectr-validate-") as folder:
        return validate_tables(source, Path(folder) / "tables", config, force, quarantine=source / "quarantine")


if __name__ == "__main__":
    from jobs.cli import run_job

    run_job("validate")

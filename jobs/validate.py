"""validate: check a log and publish it as canonical tables; bad rows go to quarantine."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from jobs.options import PATH, Force, command
from prectr.core.artifacts import StageResult
from prectr.core.mirror import local_path
from prectr.data.config import ValidateConfig
from prectr.data.validate import validate_tables


@command("validate")
def run(
    *,
    source: Annotated[
        Path,
        typer.Argument(metavar="TABLES", help="Directory of items, impressions and other tables.", parser=local_path),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Publish the clean tables here; else check only.", **PATH)
    ] = None,
    config: ValidateConfig,
    force: Force = False,
) -> StageResult:
    """Validate the log below `source` and publish clean tables at `out`; with `out` None only check it."""
    if out is not None:
        return validate_tables(source, out, config, force)
    with tempfile.TemporaryDirectory(prefix="prectr-validate-") as folder:
        return validate_tables(source, Path(folder) / "tables", config, force, quarantine=source / "quarantine")

"""validate: check a log and publish it as canonical tables; bad rows go to quarantine."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from jobs.options import PATH, Force, command
from prectr.core.artifacts import StageResult
from prectr.core.mirror import local_path
from prectr.data.config import ValidateConfig
from prectr.data.profile import Profile
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
    report: Annotated[
        Path | None, typer.Option("--report", help="Write a page about the log to this HTML file.", **PATH)
    ] = None,
    config: ValidateConfig,
    force: Force = False,
) -> StageResult:
    """Validate the log below `source` and publish clean tables at `out`; with `out` None only check it.

    A `report` is written whether the log is accepted or not.
    """
    profile = None if report is None else Profile()
    try:
        if out is None:
            result = _check(source, config, source / "quarantine", profile)
        else:
            result = validate_tables(source, out, config, force, profile=profile)
            if profile is not None and result.skipped:  # the tables are up to date, but the page is asked for
                with tempfile.TemporaryDirectory(prefix="prectr-validate-") as folder:
                    _check(source, config, Path(folder), profile)
    finally:
        if profile is not None and report is not None and profile.bad is not None:
            from prectr.reports.validation_page import write_validation_page

            write_validation_page(profile, source, report)
    return result


def _check(source: Path, config: ValidateConfig, quarantine: Path, profile: Profile | None) -> StageResult:
    with tempfile.TemporaryDirectory(prefix="prectr-validate-") as folder:
        return validate_tables(source, Path(folder) / "tables", config, quarantine=quarantine, profile=profile)

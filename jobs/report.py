"""report: one self-contained HTML page about a workspace."""

from pathlib import Path
from typing import Any

from prectr.artifacts import StageResult, require_artifact, run_stage
from prectr.configuration import FrozenConfig

PAGE = "report.html"


def run(*, workspace: Path, evaluation: Path, out: Path, force: bool = False) -> StageResult:
    """Write the page about `workspace`, with the figures of `evaluation`, into the artifact `out`."""
    require_artifact(evaluation, "evaluate")

    def build(staging: Path) -> dict[str, Any]:
        from jobs.evaluate import read
        from prectr.reporting.page import render_page

        (staging / PAGE).write_text(render_page(workspace, read(evaluation)), encoding="utf-8")
        return {}

    inputs: dict[str, Path | str] = {"evaluation": evaluation}
    return run_stage("report", out, config=FrozenConfig(), inputs=inputs, build=build, force=force)


if __name__ == "__main__":
    from jobs.cli import run_job

    run_job("report")

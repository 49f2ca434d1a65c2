"""report: write one self-contained HTML page about a workspace, and its content as Markdown and JSON."""

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import PATH, Answer, Force, Out, command, manifest_of
from prectr.core import progress
from prectr.core.artifacts import StageResult, read_manifest, require_artifact, run_stage, write_json
from prectr.core.errors import PrectrError, UsageError
from prectr.reports.config import ReportConfig

PAGE, MARKDOWN, CONTENT = "report.html", "report.md", "report.json"
MINED = ("tables", "relevance", "preferences")
"""Artifacts of the workspace that coverage and the check against the truth are computed from."""


@command("report", show=lambda result: Answer(manifest_of(result), show=lambda: print(result.path / PAGE)))
def run(
    *,
    workspace: Annotated[Path, typer.Option("--workspace", help="Directory that holds the stages' artifacts.", **PATH)],
    evaluation: Annotated[Path, typer.Option("--evaluation", help="Artifact of evaluate.", **PATH)],
    out: Out,
    ablation: Annotated[Path | None, typer.Option("--ablation", help="Artifact of ablate.", **PATH)] = None,
    config: ReportConfig | None = None,
    force: Force = False,
) -> StageResult:
    """Write the report about `workspace`, with the figures of `evaluation` and of `ablation`, into the artifact `out`.

    Raises:
        UsageError: there is no `workspace`, or `evaluation` or `ablation` is not an evaluation.
    """
    if not workspace.is_dir():
        raise UsageError(f"{workspace}: no such directory; give the one that holds the stages' artifacts.")
    require_artifact(evaluation, "evaluate")
    if ablation is not None:
        require_artifact(ablation, "evaluate")
    mined = {name: workspace / name for name in MINED}
    whole = all(read_manifest(path) is not None for path in mined.values())

    def build(staging: Path) -> dict[str, Any]:
        from jobs.evaluate import read
        from prectr.reports.evaluation import Report, identities_of
        from prectr.reports.evaluation_page import render_markdown, render_page

        coverage, check = _preferences(**mined) if whole else (None, None)
        ablated = None if ablation is None else read(ablation)
        identities = identities_of(evaluation)
        if ablation is not None:
            identities |= {f"ablation, {name}": identity for name, identity in identities_of(ablation).items()}
        report = Report.of(workspace, read(evaluation), ablated, coverage, check, config, identities)
        (staging / PAGE).write_text(render_page(report), encoding="utf-8")
        (staging / MARKDOWN).write_text(render_markdown(report), encoding="utf-8")
        write_json(staging / CONTENT, report.as_json())
        return {"tolerance_check": check}

    inputs: dict[str, Path | str] = {"evaluation": evaluation, **(mined if whole else {})}
    if ablation is not None:
        inputs["ablation"] = ablation
    return run_stage("report", out, config=config or ReportConfig(), inputs=inputs, build=build, force=force)


def _preferences(tables: Path, relevance: Path, preferences: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Coverage by source, and the check against the truth if the log has one."""
    from prectr.data.tables import Tables
    from prectr.evaluation.tolerance_check import check_against_truth
    from prectr.preferences.mined import Preferences
    from prectr.reports.preferences import coverage_by_source

    coverage = coverage_by_source(Preferences.open(preferences), relevance)
    if not (tables / "truth").is_dir():
        return coverage, None
    try:
        return coverage, check_against_truth(preferences, relevance, Tables(tables))
    except PrectrError as error:
        progress.say(f"  the report has no check of tolerances against the truth: {error}")
        return coverage, None

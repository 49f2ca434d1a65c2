"""analyze-experiment: judge an online test from logged exposures and the assignment of users to variants.

It checks the sample ratio and reports every measure with delta-method or bootstrap intervals, with CUPED, and with
bounds that stay valid when the test is looked at every day.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import PATH, Answer, Force, Out, Shortcut, command
from prectr.core.artifacts import StageResult, require_artifact, run_stage, without_nan, write_json
from prectr.data.config import ValidateConfig
from prectr.evaluation.experiments.config import ExperimentConfig

EXPERIMENT, PAGE = "experiment.json", "experiment.md"


class _Decisions(ExperimentConfig):
    """All settings that decide the report."""

    validation: ValidateConfig
    """Rules and limits for rows."""


@command(
    "analyze-experiment",
    shortcuts={
        "control": Shortcut(
            "experiment.control",
            Annotated[str | None, typer.Option(help="The variant that others are compared with.")],
        )
    },
    show=lambda result: answer_of(result),
)
def run(
    *,
    exposures: Annotated[
        Path,
        typer.Option(
            "--exposures", help="Impressions (Parquet or CSV file or directory) during the experiment.", **PATH
        ),
    ],
    assignment: Annotated[
        Path, typer.Option("--assignment", help="File with user_id, variant and, if known, ts.", **PATH)
    ],
    out: Out,
    config: ExperimentConfig,
    validation: ValidateConfig,
    before: Annotated[
        Path | None, typer.Option("--before", help="Earlier impressions or tables, for CUPED.", **PATH)
    ] = None,
    force: Force = False,
) -> StageResult:
    """Judge an experiment and publish `experiment.json` and `experiment.md` at `out`.

    Bad rows go to `quarantine/NAME.parquet` beside `out`, whose name is NAME.
    Arguments and errors are those of `prectr.evaluation.experiments.exposures.read_experiment`.
    """

    def build(staging: Path) -> dict[str, Any]:
        from prectr.evaluation.experiments.analysis import analyse
        from prectr.evaluation.experiments.exposures import read_experiment

        bad_rows = out.parent / "quarantine" / f"{out.name}.parquet"
        report = analyse(read_experiment(exposures, assignment, before, config, validation, bad_rows), config)
        write(staging, report)
        return {"simulated": report["simulated"], "rows": {"exposures": report["counts"]["rows_counted"]}}

    inputs = {"exposures": exposures, "assignment": assignment}
    if before is not None:
        inputs["before"] = before
    decisions = _Decisions(**config.model_dump(), validation=validation)
    return run_stage("analyze-experiment", out, config=decisions, inputs=inputs, build=build, force=force)


def write(folder: Path, report: dict[str, Any]) -> None:
    """Write a report as JSON and as Markdown."""
    from prectr.reports.experiment import markdown

    report = without_nan(report)
    write_json(folder / EXPERIMENT, report)
    (folder / PAGE).write_text(markdown(report), encoding="utf-8")


def answer_of(result: StageResult, stage: str = "analyze-experiment") -> Answer:
    """The report of an artifact, for `--json` and for a person."""
    from prectr.reports.experiment import print_experiment

    content = read(result.path, stage)
    return Answer(content, show=lambda: print_experiment(content))


def read(out: Path, stage: str = "analyze-experiment") -> dict[str, Any]:
    """The report of an artifact."""
    require_artifact(out, stage)
    content: dict[str, Any] = json.loads((out / EXPERIMENT).read_text(encoding="utf-8"))
    return content

"""pipeline: run the whole chain in one driver. Stages that are up to date are skipped, so a killed run can be resumed.

Read it top to bottom: this is what the project does.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs import distill, evaluate, label, publish, report, select_pairs, simulate, train, train_teacher
from jobs.options import Answer, command
from jobs.pipeline import daily
from jobs.pipeline.config import PipelineConfig
from jobs.pipeline.lease import lease
from jobs.pipeline.stages import Stages, make_samples
from jobs.settings import Settings
from prectr.contracts.model_config import ModelConfig
from prectr.core import mirror, progress
from prectr.core.artifacts import write_json
from prectr.core.errors import UsageError
from prectr.core.locks import LockedError, exclusive
from prectr.core.ray_session import ray_session
from prectr.data.tables import Tables
from prectr.data.validate import validate_tables
from prectr.features.load import split_days
from prectr.reports.terminal import print_wall_times

STATE, LOCK = "pipeline.json", ".pipeline.lock"
CODE = ("platform/prectr", "models", "jobs")


@dataclass
class Pipeline:
    """The result of a run.

    Attributes:
        workspace: directory of all artifacts.
    """

    workspace: Path
    _stages: Stages = field(default_factory=Stages)

    @property
    def stages(self) -> list[tuple[str, float, bool]]:
        """(name, seconds, skipped) in order."""
        return self._stages.done

    @property
    def evaluation(self) -> Path:
        """The artifact of `evaluate`."""
        return self.workspace / "reports" / "evaluation"

    @property
    def page(self) -> Path:
        """The report."""
        return self.workspace / "reports" / "page" / report.PAGE

    def ranker(self, name: str) -> Path:
        """The bundle of a model."""
        return self.workspace / "rankers" / name


@command("pipeline")
def run_command(
    *,
    settings: Settings,
    restart: Annotated[
        bool, typer.Option("--restart", help="Go on with an unfinished run although the code has changed since.")
    ] = False,
    daily: Annotated[
        bool, typer.Option("--daily", help="Take the newest day in: train on, judge, and ramp up what is not worse.")
    ] = False,
) -> Answer:
    """`prectr pipeline`: run all stages, or with `daily` those of a new day, and print their times."""
    if daily:
        taken = run_daily(settings.pipeline, settings, restart=restart)
        content: dict[str, Any] = {"file": mirror.named(taken.models), **taken.decision.model_dump(mode="json")}
        return Answer(content, show=lambda: _print_times(taken.stages))
    done = run(settings.pipeline, settings, restart=restart)
    content = {
        "report": mirror.named(done.page),
        "evaluation": mirror.named(done.evaluation),
        "stages": [
            {"stage": name, "seconds": round(seconds, 1), "skipped": skipped} for name, seconds, skipped in done.stages
        ],
    }

    def show() -> None:
        _print_times(done.stages)
        print(f"report: {done.page}")

    return Answer(content, show=show)


def _print_times(stages: list[tuple[str, float, bool]]) -> None:
    print_wall_times(stages, sum(seconds for _, seconds, _ in stages))


def run(config: PipelineConfig, settings: Settings, restart: bool = False) -> Pipeline:
    """Run all stages.

    Args:
        config: workspace, log and models.
        settings: of the stages.
        restart: resume an unfinished run although the code has changed.

    Raises:
        UsageError: another pipeline works on the workspace, or an unfinished run there was started with other code.
        PrectrError: a stage failed; what was finished stays.
    """
    with _alone(config.workspace, restart):
        return _run(config, settings)


def run_daily(config: PipelineConfig, settings: Settings, restart: bool = False) -> daily.Daily:
    """Process a new day (`jobs.pipeline.daily`), alone in the workspace; raises as `run`."""
    with _alone(config.workspace, restart):
        return daily.run(config, settings)


def _run(config: PipelineConfig, settings: Settings) -> Pipeline:
    done = Pipeline(config.workspace)
    workspace, stage = done.workspace, done._stages.run
    tables, teacher, selection = workspace / "tables", workspace / "teacher", workspace / "labels-selection"
    labels, encoder = workspace / "labels", workspace / "encoder"
    preferences, samples = workspace / "preferences", workspace / "samples"

    if (source := config.source) is None:
        stage("simulate", lambda: simulate.run(out=tables, config=settings.simulate))
    else:
        mirror.fetch(source)
        stage("validate", lambda: validate_tables(source, tables, settings.validation))
    split_days(Tables(tables).days())  # fails early if the log has too few days
    with ray_session(settings.ray):
        if config.teacher is None:
            stage("train-teacher", lambda: train_teacher.run(tables=tables, out=teacher, config=settings.teacher))
        stage("select-pairs", lambda: select_pairs.run(tables=tables, out=selection, config=settings.selection))
        labelled = stage(
            "label",
            lambda: label.run(
                tables=tables,
                teacher=config.teacher or str(teacher),
                out=labels,
                config=settings.label,
                selection=selection,
                yes=True,
            ),
        )
        progress.say(f"  labels come from the engine: {labelled.manifest['engine']}")
        stage("distill", lambda: distill.run(tables=tables, labels=labels, out=encoder, config=settings.distill))
        make_samples(workspace, settings, settings.samples, done._stages)
        for name in config.rankers:
            model = ModelConfig.model_validate(settings.train.model.model_dump() | {"name": name})
            of_model = settings.train.model_copy(update={"model": model})
            stage(
                f"train {name}",
                lambda name=name, of_model=of_model: train.run(  # type: ignore[misc]
                    samples=samples, encoder=encoder, preferences=preferences, out=done.ranker(name), config=of_model
                ),
            )
        stage(
            "evaluate",
            lambda: evaluate.run(
                tables=tables,
                samples=samples,
                preferences=preferences,
                bundles={name: [done.ranker(name)] for name in config.rankers},
                labels=labels,
                encoder=encoder,
                out=done.evaluation,
                config=settings.evaluate,
            ),
        )
        stage(
            "report",
            lambda: report.run(
                workspace=workspace, evaluation=done.evaluation, out=done.page.parent, config=settings.report
            ),
        )
    if config.publish is not None:
        to = config.publish
        done._stages.time("publish", lambda: publish.run(ranker=done.ranker(config.rankers[-1]), to=to))
    return done


@contextmanager
def _locked(workspace: Path) -> Iterator[None]:
    try:
        with exclusive(workspace / LOCK):
            yield
    except LockedError as error:
        raise UsageError(
            f"{workspace}: another pipeline works there ({error}); wait for it or stop it, or use another workspace."
        ) from None


@contextmanager
def _alone(workspace: Path, restart: bool) -> Iterator[None]:
    """Allow one pipeline a workspace at a time, and resume an unfinished one only with its own code."""
    workspace.mkdir(parents=True, exist_ok=True)
    with _locked(workspace):
        code = _code_digest()
        mirror.fetch(workspace / STATE)
        state = _read_state(workspace)
        if not restart and not state.get("finished", True) and state.get("code") != code:
            raise UsageError(
                f"{workspace}: an unfinished pipeline there was started with other code; finish it with that code, or "
                "give --restart to resume it with this code (finished stages are kept)."
            )
        with lease(workspace):
            _write_state(workspace, {"code": code, "finished": False, "process": os.getpid()})
            yield
            _write_state(workspace, {"code": code, "finished": True})


def _write_state(workspace: Path, state: dict[str, object]) -> None:
    write_json(workspace / STATE, state)
    mirror.send_file(workspace / STATE)


def _read_state(workspace: Path) -> dict[str, object]:
    try:
        content: dict[str, object] = json.loads((workspace / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content


def _code_digest() -> str:
    """Hash of the code that runs."""
    root = Path(__file__).resolve().parents[2]
    total = hashlib.blake2b(digest_size=12)
    for part in CODE:
        for file in sorted((root / part).rglob("*.py")):
            total.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return total.hexdigest()

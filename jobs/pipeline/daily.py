"""The daily mode of `pipeline`: add a new day, train a model on it, and roll the model out if it is not worse.

Read it top to bottom. Labels and partial aggregates of earlier days, the encoder and the feature specification are
kept. So the model of the day starts from the weights of the model before it, both are judged on the same rows, and a
server reads one online state for both.
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from jobs import evaluate, label, publish, select_pairs, train
from jobs.pipeline.config import PipelineConfig
from jobs.pipeline.rollout import CURRENT, NEXT, Judged, Outcome, after, judge, read_models, write_models
from jobs.pipeline.stages import Stages, make_samples
from jobs.settings import Settings
from prectr.core import mirror, progress
from prectr.core.artifacts import read_manifest, require_artifact, write_json
from prectr.core.config import FrozenConfig
from prectr.core.errors import PrectrError, UsageError, shorten
from prectr.core.mirror import LocalOrUri
from prectr.core.ray_session import ray_session
from prectr.data.tables import Tables
from prectr.data.validate import validate_tables
from prectr.ranking.bundle import Bundle
from prectr.serving.config import ModelsConfig

_OLD_OUTCOMES = {
    "enters": "started",
    "ramps": "advanced",
    "becomes current": "promoted",
    "is worse": "rejected",
    "is worse, and so is what ramped": "rolled_back",
}
"""Outcomes as files of earlier versions have them."""


class Decision(FrozenConfig):
    """The decision about the model of a day."""

    day: date
    outcome: Annotated[Outcome, BeforeValidator(lambda outcome: _OLD_OUTCOMES.get(outcome, outcome))]
    ranker: LocalOrUri
    judged: Judged
    models: ModelsConfig
    """The models to serve from then on."""
    carried_out: bool = False


@dataclass(frozen=True)
class Daily:
    """The result of a daily run.

    Attributes:
        decision: about the newest day of the log.
        models: the file of models that servers watch.
        stages: (name, seconds, skipped) in order.
    """

    decision: Decision
    models: Path
    stages: list[tuple[str, float, bool]]


def run(config: PipelineConfig, settings: Settings) -> Daily:
    """Process the newest day of `pipeline.source`; the caller holds the lock of the workspace.

    Raises:
        UsageError: no source, no finished pipeline in the workspace, or settings that the parts kept do not allow.
        PrectrError: a stage failed; what was finished stays, and what is served does not change.
    """
    workspace, source, stages = config.workspace, config.source, Stages()
    if source is None:
        raise UsageError("pipeline --daily: set pipeline.source to the log that new days are added to.")
    tables, encoder, preferences = workspace / "tables", workspace / "encoder", workspace / "preferences"
    selection, labels = workspace / "labels-selection", workspace / "labels"
    samples, file = workspace / "samples", _models_file(config)
    require_artifact(encoder, "distill")
    models = _served(config, file)

    mirror.fetch(source)
    stages.run("validate", lambda: validate_tables(source, tables, settings.validation))
    day = max(Tables(tables).days())
    ranker = workspace / "rankers" / f"{config.rankers[-1]}-{day}"
    judging = workspace / "reports" / f"daily-{day}"
    decision = judging.with_name(f"{judging.name}.json")
    if (decided := read_decision(decision)) is not None:
        if decided.carried_out:
            progress.say(f"pipeline: {day} was decided before ({decided.outcome}); nothing is new")
        else:
            decided = _carry_out(decided, decision, config, stages)
        return Daily(decided, file, stages.done)

    start = models.bundles.get(NEXT, models.bundles[CURRENT])
    with ray_session(settings.ray):
        of_day = settings.selection.model_copy(update={"budget": config.daily.questions})
        stages.run("select-pairs", lambda: select_pairs.run(tables=tables, out=selection, config=of_day, extend=True))
        teacher = config.teacher or str(workspace / "teacher")
        stages.run(
            "label",
            lambda: label.run(
                tables=tables, teacher=teacher, out=labels, config=settings.label, selection=selection, yes=True
            ),
        )
        kept = settings.samples.model_copy(update={"specification_from": models.bundles[CURRENT]})
        make_samples(workspace, settings, kept, stages)
        warm = settings.train.model_copy(
            update={
                "model": Bundle.open(start).model,
                "start_from": start,
                "epochs": config.daily.epochs,
                "learning_rate": config.daily.learning_rate_share * settings.train.learning_rate,
            }
        )
        stages.run(
            "train",
            lambda: train.run(samples=samples, encoder=encoder, preferences=preferences, out=ranker, config=warm),
        )
        contestants = {name: [models.bundles[name]] for name in (CURRENT, NEXT) if name in models.bundles}
        judged_day = stages.run(
            "evaluate",
            lambda: evaluate.run(
                tables=tables,
                samples=samples,
                preferences=preferences,
                bundles={**contestants, "new": [ranker]},
                labels=labels,
                encoder=encoder,
                out=judging,
                config=settings.evaluate,
                base=CURRENT,
                improvement_base=CURRENT,
            ),
        )
    decided = _decide(config, models, evaluate.read(judged_day.path), day, ranker)
    _write_decision(decided, decision)
    decided = _carry_out(decided, decision, config, stages)
    return Daily(decided, file, stages.done)


def _decide(
    config: PipelineConfig, models: ModelsConfig, evaluation: dict[str, Any], day: date, ranker: Path
) -> Decision:
    """The decision from the figures of the day."""
    daily = config.daily
    new = judge(evaluation, "new", daily.metric, daily.margin)
    ramping = NEXT in models.bundles and judge(evaluation, NEXT, daily.metric, daily.margin).worse
    served, outcome = after(models, ranker, daily.ramp, new.worse, ramping)
    progress.say(
        f"pipeline: the model of {day}: {outcome} ({daily.metric} {new.difference:+.4f}, {new.low:+.4f} to "
        f"{new.high:+.4f} against {CURRENT}: {new.verdict})"
    )
    return Decision(day=day, outcome=outcome, ranker=ranker, judged=new, models=served)


def _carry_out(decided: Decision, decision: Path, config: PipelineConfig, stages: Stages) -> Decision:
    """Publish the state and write the file of models. A run that was killed in between does it again."""
    if not decided.judged.worse and (to := config.publish) is not None:
        stages.time("publish", lambda: publish.run(ranker=decided.ranker, to=to))
    file = _models_file(config)
    _write_served(decided.models, file)  # after the state: a server that loads the new model finds what it reads
    done = decided.model_copy(update={"carried_out": True})
    _write_decision(done, decision)
    return done


def read_decision(file: Path) -> Decision | None:
    """The decision about a day, or None.

    Raises:
        PrectrError: the file cannot be read.
    """
    mirror.fetch(file)
    if not file.is_file():
        return None
    try:
        return Decision.model_validate_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PrectrError(
            f"{file}: cannot be read ({shorten(error)}); delete it to have the day decided again."
        ) from None


def _write_decision(decided: Decision, file: Path) -> None:
    write_json(file, decided.model_dump(mode="json"))
    mirror.send_file(file)


def _models_file(config: PipelineConfig) -> Path:
    return config.daily.models or config.workspace / "models.yaml"


def _write_served(models: ModelsConfig, file: Path) -> None:
    write_models(models, file)
    mirror.send_file(file)


def _served(config: PipelineConfig, file: Path) -> ModelsConfig:
    """The models served now. Before the first day it is the last ranker of the full pipeline; the file is written.

    Raises:
        UsageError: neither is there, or the file names no `current`.
    """
    mirror.fetch(file)
    models = read_models(file)
    if models is None:
        first = config.workspace / "rankers" / config.rankers[-1]
        if read_manifest(first) is None:
            raise UsageError(
                f"{first}: no ranker to begin with; run `prectr pipeline` once, and with --daily each day."
            )
        models = ModelsConfig(bundles={CURRENT: first})
        _write_served(models, file)
    if CURRENT not in models.bundles:
        raise UsageError(
            f"{file}: has no bundle named {CURRENT}; give this name to the one that new models are compared with."
        )
    return models

"""evaluate: judge rankers on the same test day, with intervals.

Bounds are `position-only` and, on simulated logs, the oracle. The relevance levels are judged too: teacher, student and
a lexical baseline on held-back judged queries.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import typer
from scipy.special import expit

from jobs import train_contestants
from jobs.options import (
    PATH,
    Answer,
    Encoder,
    Force,
    Labels,
    Out,
    Preferences,
    Rankers,
    Seeds,
    TablesIn,
    command,
    require_paths,
)
from jobs.options import Samples as SamplesIn
from prectr.core import progress
from prectr.core.artifacts import StageResult, fingerprint, read_manifest, require_artifact, run_stage, write_json
from prectr.core.config import FrozenConfig
from prectr.core.errors import UsageError, listed, shorten
from prectr.core.ray_session import RayConfig
from prectr.data.tables import Tables
from prectr.evaluation import curves, scores
from prectr.evaluation.config import EvaluateConfig
from prectr.evaluation.contestants import chosen, label_of
from prectr.evaluation.day import LIST_SLICES, TestDay
from prectr.evaluation.figures import LIST_METRICS, ROW_METRICS, describe_lists, describe_slices, measure
from prectr.evaluation.off_policy import off_policy_values
from prectr.evaluation.relevance_quality import relevance_quality
from prectr.evaluation.truth import tolerance_against_truth
from prectr.features.load import Samples, sample_days, split_days
from prectr.ranking.scoring import Scorer
from prectr.reports.terminal import print_evaluation
from prectr.training.config import TrainConfig

EVALUATION, PREDICTIONS = "evaluation.json", "predictions.parquet"
BOUNDS = ("position-only", "oracle")
BASE = "wide-deep"
"""The model that others are compared with, as in the paper's results table."""


class _Compared(FrozenConfig):
    """The settings that identify an evaluation."""

    evaluate: EvaluateConfig
    base: str
    improvement_base: str


def run(
    *,
    tables: Path,
    samples: Path,
    preferences: Path,
    bundles: Mapping[str, Sequence[Path]],
    labels: Path,
    encoder: Path,
    out: Path,
    config: EvaluateConfig,
    files: Mapping[str, Path] | None = None,
    base: str = BASE,
    improvement_base: str = BASE,
    force: bool = False,
) -> StageResult:
    """Judge models on the test day and publish figures and predictions at `out`.

    Args:
        tables: the log.
        samples: of the log; all bundles were trained on them.
        preferences: mined of the log.
        bundles: model name -> its bundles, one a seed; all models have equally many.
        labels: of `label`.
        encoder: of `distill`.
        out: the artifact.
        config: slices and resamples.
        files: name -> file with scores of a model of the user (`prectr.evaluation.scores.file_scores`).
        base: the model that differences refer to; the first model if it is missing.
        improvement_base: the model that RelaImpr refers to; no RelaImpr if it is missing.
        force: judge again.

    Raises:
        UsageError: an artifact is missing; models have unequal numbers of seeds, were trained on other samples or on
            later days; or a file's rows are not those of the test day.
        PrectrError: a score is NaN.
    """
    files = files or {}
    log = Tables(tables)
    for artifact, stage in (
        (samples, "build-samples"),
        (preferences, "mine-preferences"),
        (labels, "label"),
        (encoder, "distill"),
    ):
        require_artifact(artifact, stage)
    _check_names(bundles, files)
    identity = fingerprint(samples)
    _, _, day = split_days(sample_days(samples))
    for of_seeds in bundles.values():
        for bundle in of_seeds:
            scores.require_comparable(bundle, samples, identity, day)

    def build(staging: Path) -> dict[str, Any]:
        test = TestDay.of(Samples.open(samples), log, config)
        evaluation = _evaluate(test, bundles, files, staging, config, base, improvement_base)
        evaluation |= {
            "quality": relevance_quality(log, labels, encoder),
            "tolerance": tolerance_against_truth(log, preferences),
        }
        write_json(staging / EVALUATION, evaluation)
        return {"rows": {"test": evaluation["test_rows"]}}

    inputs: dict[str, Path | str] = {
        "tables": tables,
        "samples": samples,
        "preferences": preferences,
        "labels": labels,
        "encoder": encoder,
        **{f"{name}, seed {number}": path for name, paths in bundles.items() for number, path in enumerate(paths)},
        **{f"scores {name}": path for name, path in files.items()},
    }
    compared = _Compared(evaluate=config, base=base, improvement_base=improvement_base)
    return run_stage("evaluate", out, config=compared, inputs=inputs, build=build, force=force)


@command("evaluate")
def run_command(
    *,
    tables: TablesIn,
    samples: SamplesIn,
    preferences: Preferences,
    labels: Labels,
    encoder: Encoder,
    out: Out,
    models: Annotated[
        str | None, typer.Option("--models", help="Models to train, or reuse, and judge: all, or a,b,c.")
    ] = None,
    seeds: Seeds = 1,
    rankers: Rankers = None,
    ranker: Annotated[
        list[Path] | None, typer.Option("--ranker", help="A bundle to judge; give the option once for each.", **PATH)
    ] = None,
    scores: Annotated[
        list[str] | None,
        typer.Option("--scores", help="NAME=FILE: scores of a model of yours for every impression of the test day."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", help="Which of them the others are compared with; wide-deep, else the first."),
    ] = None,
    config: EvaluateConfig,
    train: TrainConfig,
    ray_config: RayConfig,
    force: Force = False,
) -> Answer:
    """`prectr evaluate`: train what `models` lacks, judge all, and print the tables."""
    files = [pair.partition("=") for pair in scores or ()]
    if any(not name or not file for name, _, file in files):
        raise UsageError("--scores wants NAME=FILE, such as ours=scores.parquet.")
    bundles: dict[str, list[Path]] = {path.name: [path] for path in ranker or ()}
    contestants = [] if models is None else chosen(models.split(","))
    names = [*(one.name for one in contestants), *bundles, *(name for name, _, _ in files)]
    if base is not None and base not in names:
        raise UsageError(f"--base {shorten(base, 80)}: is none of those that are judged: {listed(names)}.")
    require_paths("scores", *(Path(file) for _, _, file in files))
    if contestants:
        if ranker:
            raise UsageError("give --models or --ranker, not both: with --models, bundles are found in --rankers.")
        bundles = train_contestants.run(
            contestants,
            seeds,
            samples=samples,
            encoder=encoder,
            preferences=preferences,
            rankers=rankers or samples.parent / "rankers",
            config=train,
            ray_config=ray_config,
        )
    result = run(
        tables=tables,
        samples=samples,
        preferences=preferences,
        bundles=bundles,
        labels=labels,
        encoder=encoder,
        out=out,
        config=config,
        files={name: Path(file) for name, _, file in files},
        base=base or BASE,
        force=force,
    )
    return answer_of(result)


def answer_of(evaluated: StageResult) -> Answer:
    """The content of an evaluation, and its tables for a person."""
    content = read(evaluated.path)
    return Answer(content, show=lambda: print_evaluation(content))


def read(evaluation: Path) -> dict[str, Any]:
    """The content of an evaluation artifact."""
    require_artifact(evaluation, "evaluate")
    content: dict[str, Any] = json.loads((evaluation / EVALUATION).read_text(encoding="utf-8"))
    return content


def _check_names(bundles: Mapping[str, Sequence[Path]], files: Mapping[str, Path]) -> None:
    if not bundles and not files:
        raise UsageError("evaluate: nothing to judge; give --models, --ranker or --scores.")
    seeds = {name: len(paths) for name, paths in bundles.items()}
    if len(set(seeds.values())) > 1:
        counts = ", ".join(f"{name} {number}" for name, number in seeds.items())
        raise UsageError(f"evaluate: models must have equally many seeds, got {counts}.")
    for name in files:
        if name in bundles or name in BOUNDS:
            raise UsageError(f"--scores {name}: that name is taken; give the file another.")


def _evaluate(
    test: TestDay,
    bundles: Mapping[str, Sequence[Path]],
    files: Mapping[str, Path],
    staging: Path,
    config: EvaluateConfig,
    base: str,
    improvement_base: str,
) -> dict[str, Any]:
    if not test.clicked.any():
        progress.say("evaluate: the test day has no click, so AUC and GAUC are undefined; only the log loss is defined")
    seeds = max((len(paths) for paths in bundles.values()), default=1)
    models: dict[str, list[scores.DayScores]] = {"position-only": [scores.position_only(test)] * seeds}
    predictions = test.shown.select("request_id", "user_id", "item_id", "query", "position", "clicked", "user_requests")
    of_files = {
        name: scores.file_scores(path, test) for name, path in files.items()
    }  # a wrong file fails before minutes of scoring
    with progress.track("evaluate", total=seeds * len(bundles), unit="bundles") as bar:
        for name, paths in bundles.items():
            models[name] = []
            for path in paths:
                day_scores = scores.bundle_scores(path, test)
                models[name].append(day_scores)
                columns = [pl.Series(f"{path.name}.logit", day_scores.free)]
                if day_scores.incentive is not None:
                    columns.append(pl.Series(f"{path.name}.incentive", day_scores.incentive))
                predictions = predictions.with_columns(columns)
                bar.advance(1)
    models |= {name: [day_scores] * seeds for name, day_scores in of_files.items()}
    if (truth := scores.oracle(test)) is not None:
        models["oracle"] = [truth] * seeds
    predictions.write_parquet(staging / PREDICTIONS)
    base = base if base in models else next(iter([*bundles, *files]))
    slices = describe_slices(test, config)
    if test.lists is not None:
        slices |= describe_lists(test.lists, LIST_SLICES)
    with progress.track("intervals", total=len(slices), unit="slices") as bar:
        figures = measure(
            test, models, config, base=base, improvement_base=improvement_base, on_slice=lambda _: bar.advance(1)
        )
    return {
        "simulated": test.tables.simulated,
        "test_day": str(test.day),
        "test_rows": len(test.clicked),
        "seeds": seeds,
        "base": base,
        "improvement_base": improvement_base if improvement_base in models else None,
        "settings": config.model_dump(mode="json"),
        "slices": slices,
        "models": {
            name: {
                "label": label_of(name),
                "kind": "bundle" if name in bundles else "bound" if name in BOUNDS else "file",
                "bundles": [path.name for path in bundles.get(name, ())],
            }
            for name in models
        },
        "figures": figures,
        "calibration": curves.calibration_curves(test, models),
        "incentive": curves.incentive_curves(test, models),
        "off_policy": off_policy_values(
            test, models, base=base, reward=_reward(bundles.get(base), models[base][0]), level=config.level
        ),
        "position": curves.position_curves(test, {name: paths[0] for name, paths in bundles.items()}),
        "definitions": {
            metric.name: {"heading": metric.heading, "definition": metric.definition.format(top=config.top)}
            for metric in (*ROW_METRICS, *LIST_METRICS)
        },
        "log": _log(test, read_manifest(test.tables.path) or {}),
    }


def _reward(
    bundles: Sequence[Path] | None, of_base: scores.DayScores
) -> Callable[[np.ndarray, int], np.ndarray] | None:
    """Click probability of rows at a position, by the first bundle of the base model; None if the base is no bundle."""
    if not bundles:
        return None
    scorer = Scorer(bundles[0])

    def at(rows: np.ndarray, position: int) -> np.ndarray:
        return expit(scorer.with_position(of_base.free[rows], np.full(len(rows), position)))

    return at


def _log(test: TestDay, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Facts about the log for the data card."""
    files = test.samples.files(test.samples.days())
    columns = ("request_id", "user_id", "query", "item_id")
    counted = (
        pl.scan_parquet(files, hive_partitioning=False)
        .select(
            pl.len().alias("impressions"),
            pl.col("clicked").sum().alias("clicks"),
            *(pl.col(name).n_unique().alias(name.removesuffix("_id")) for name in columns),
        )
        .collect()
        .row(0, named=True)
    )
    days = test.samples.days()
    return {
        "days": f"{days[0]} to {days[-1]} ({len(days)})",
        "impressions": counted["impressions"],
        "requests": counted["request"],
        "users": counted["user"],
        "queries": counted["query"],
        "items shown": counted["item"],
        "clicks": counted["clicks"],
        "click-through rate": counted["clicks"] / counted["impressions"],
        "cold share of the test day": float(test.slices["cold"].mean()),
        "made by": manifest.get("stage"),
        "statistics": manifest.get("statistics") or manifest.get("rows") or {},
    }

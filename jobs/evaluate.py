"""evaluate: rankers on the same test day, with position-only and (simulated logs) the oracle as bounds.

Also how good the relevance levels are: teacher, student and a lexical baseline on held-back judged queries.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from scipy.special import expit

from prectr import progress
from prectr.artifacts import StageResult, fingerprint, read_manifest, require_artifact, run_stage, write_json
from prectr.errors import UsageError
from prectr.evaluation import (
    DEFINITIONS,
    TestRows,
    add_relative_improvement,
    figures,
    oracle,
    position_only,
    tolerance_against_truth,
)
from prectr.labelling.quality import relevance_quality
from prectr.samples.load import Samples
from prectr.scoring import Scorer
from prectr.settings import EvaluateConfig
from prectr.tables import Tables

EVALUATION = "evaluation.json"


def run(
    *,
    tables: Path,
    samples: Path,
    preferences: Path,
    rankers: Sequence[Path],
    labels: Path,
    encoder: Path,
    out: Path,
    config: EvaluateConfig,
    force: bool = False,
) -> StageResult:
    """Judge `rankers` (bundles of the same samples) on the test day and publish figures and predictions at `out`."""
    for artifact, stage in (
        (samples, "build-samples"),
        (preferences, "mine-preferences"),
        (labels, "label"),
        (encoder, "distill"),
    ):
        require_artifact(artifact, stage)
    samples_identity = fingerprint(samples)
    for ranker in rankers:
        trained_on = require_artifact(ranker, "train")["inputs"]["samples"]
        if trained_on != samples_identity:
            raise UsageError(
                f"{ranker}: was trained on other samples than {samples}; models are compared on one set only."
            )

    def build(staging: Path) -> dict[str, Any]:
        evaluation = _evaluate(tables, samples, preferences, rankers, labels, encoder, staging, config)
        write_json(staging / EVALUATION, evaluation)
        return {"rows": {"test": evaluation["test_rows"]}}

    inputs: dict[str, Path | str] = {
        "tables": tables,
        "samples": samples,
        "preferences": preferences,
        "labels": labels,
        "encoder": encoder,
        **{f"ranker {number}": ranker for number, ranker in enumerate(rankers)},
    }
    return run_stage("evaluate", out, config=config, inputs=inputs, build=build, force=force)


def read(evaluation: Path) -> dict[str, Any]:
    """The figures of an evaluation artifact."""
    require_artifact(evaluation, "evaluate")
    content: dict[str, Any] = json.loads((evaluation / EVALUATION).read_text(encoding="utf-8"))
    return content


def _evaluate(
    tables: Path,
    samples: Path,
    preferences: Path,
    rankers: Sequence[Path],
    labels: Path,
    encoder: Path,
    staging: Path,
    config: EvaluateConfig,
) -> dict[str, Any]:
    opened = Samples.open(samples)
    test = TestRows.of(opened, config.cold_requests)
    rows = opened.rows(test.frame)
    position = test.frame["position"].to_numpy()
    if not test.clicked.any():
        progress.say("evaluate: the test day holds no click, so AUC and GAUC are undefined; log loss is all there is")
    prior = position_only(opened, test)
    models: dict[str, dict[str, Any]] = {"position-only": figures(test, prior * 0.0, prior, expit(prior))}
    predictions = test.frame.select("request_id", "user_id", "item_id", "query", "position", "clicked", "user_requests")
    with progress.track("evaluate", total=len(rows) * len(rankers), unit="rows") as bar:
        for path in rankers:
            scorer = Scorer(path)
            scores = scorer.score(rows, opened.pairs, opened.tokens)
            logged = scorer.with_position(scores.click_logit, position)
            models[path.name] = figures(test, scores.click_logit, logged, expit(logged))
            predictions = predictions.with_columns(
                pl.Series(f"{path.name}.logit", scores.click_logit),
                pl.Series(f"{path.name}.incentive", scores.incentive),
            )
            bar.advance(len(rows))
    truth = oracle(tables, test)
    if truth is not None:
        models["oracle"] = figures(test, truth[0], truth[1], truth[1])
    add_relative_improvement(models)
    predictions.write_parquet(staging / "predictions.parquet")
    manifest = read_manifest(tables) or {}
    return {
        "simulated": Tables(tables).simulated,
        "test_rows": len(rows),
        "test_day": str(test.frame["ts"].dt.date()[0]),
        "cold_requests": config.cold_requests,
        "models": models,
        "quality": relevance_quality(tables, labels, encoder),
        "tolerance": tolerance_against_truth(tables, preferences),
        "definitions": DEFINITIONS,
        "log": manifest.get("statistics") or manifest.get("rows"),
    }


if __name__ == "__main__":
    from jobs.cli import run_job

    run_job("evaluate")

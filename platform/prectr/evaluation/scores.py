"""Scores of the test day's rows: from a bundle, a bound (position only, oracle) or a user's file."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
from scipy.special import expit, logit

from prectr.contracts.schema import Column, Table
from prectr.core.artifacts import require_artifact
from prectr.core.errors import PrectrError, UsageError
from prectr.data.config import ValidateConfig
from prectr.data.reading.reader import read_table
from prectr.evaluation.day import TestDay
from prectr.features.load import split_days
from prectr.features.spec import SPEC_FILE, same_specification
from prectr.ranking.scoring import Scorer

SCORES = Table(
    "scores",
    (
        Column("request_id", "string"),
        Column("item_id", "string"),
        Column("score", "float"),
        Column("free", "float", required=False),
        Column("probability", "float", required=False),
    ),
    key=("request_id", "item_id"),
)
"""A user's file of scores."""
EXAMPLES = 3
"""Rows that an error names."""


@dataclass(frozen=True)
class DayScores:
    """Scores of one model for n shown rows and m unexposed candidates.

    Attributes:
        free: [n] position-free scores, as served.
        logged: [n] scores at the logged position.
        probability: [n] click probabilities at the logged position; None if the scores are no probabilities.
        unexposed: [m] position-free scores; None if the candidates were not scored.
        incentive: [n] tau; None for a model without an incentive.
    """

    free: np.ndarray
    logged: np.ndarray
    probability: np.ndarray | None = None
    unexposed: np.ndarray | None = None
    incentive: np.ndarray | None = None


def bundle_scores(bundle: Path, day: TestDay) -> DayScores:
    """Score the day with a bundle.

    Raises:
        UsageError: the directory holds no bundle.
        PrectrError: a score is NaN or infinite; the message names rows.
    """
    scorer = Scorer(bundle)
    samples = day.samples
    shown = scorer.score(day.shown_rows, samples.pairs, samples.tokens)
    _require_finite(bundle, day.shown, shown.click_logit)
    unexposed = None
    if day.unexposed is not None and day.unexposed_rows is not None:
        unexposed = scorer.score(day.unexposed_rows, samples.pairs, samples.tokens).click_logit
        _require_finite(bundle, day.unexposed, unexposed)
    logged = scorer.with_position(shown.click_logit, day.position)
    return DayScores(shown.click_logit, logged, expit(logged), unexposed, shown.incentive)


def require_comparable(bundle: Path, samples: Path, identity: str, day: date) -> None:
    """Refuse a bundle whose figures on the test day would not be comparable.

    Args:
        bundle: directory of a bundle.
        samples: directory of the samples that hold the test day.
        identity: fingerprint of those samples.
        day: the test day.

    Raises:
        UsageError: the directory holds no bundle, the bundle was trained on the test day or a later one, or it was
            trained on samples with another feature specification, so that it cannot read these rows.
    """
    manifest = require_artifact(bundle, "train")
    last = manifest.get("last_day", "")
    if last >= str(day):
        raise UsageError(
            f"{bundle}: was trained on clicks until {last}, but the test day is {day}; a model must be evaluated on "
            "days after its training days. Train it on samples that end with the test day."
        )
    if manifest["inputs"]["samples"] == identity:
        return
    if not same_specification(bundle / SPEC_FILE, samples / SPEC_FILE):
        raise UsageError(
            f"{bundle}: was trained on other samples than {samples}; models are compared on the same samples, or on "
            "later samples with the same feature specification (samples.specification_from)."
        )


def position_only(day: TestDay) -> DayScores:
    """Score rows by the click rate of their position on the training days, smoothed by one click in 30 rows."""
    training, _, _ = split_days(day.samples.days())
    rates = (
        day.samples.frame(training, ["position", "clicked"])
        .group_by("position")
        .agg(((pl.col("clicked").sum() + 1.0) / (pl.len() + 30.0)).alias("rate"))
    )
    joined = day.shown.select("position").join(rates, on="position", how="left", maintain_order="left")
    rate = joined["rate"].fill_null(float(rates["rate"].min() or 0.01)).to_numpy()  # type: ignore[arg-type]
    unexposed = None if day.unexposed is None else np.zeros(day.unexposed.height)
    return DayScores(np.zeros(len(rate)), logit(rate), rate, unexposed)


def oracle(day: TestDay) -> DayScores | None:
    """Score rows by their true click probabilities; None on a real log."""
    if day.truth is None:
        return None
    free = day.truth["p_click_given_exam"].to_numpy()
    logged = free * day.truth["p_exam"].to_numpy()
    unexposed = None if day.unexposed_truth is None else day.unexposed_truth["p_click_given_exam"].to_numpy()
    return DayScores(free, logged, logged, unexposed)


def file_scores(file: Path, day: TestDay) -> DayScores:
    """Read the scores of a user's model from a file with one row per impression of the test day.

    Args:
        file: columns request_id, item_id, score (at the logged position; any scale), and optionally `free` (without
            the position; else `score`) and `probability` (0..1, for calibration).
        day: the test day.

    Raises:
        UsageError: the file or a column is missing, a value is no number, a row is there twice, or the rows are not
            exactly those of the test day. The message counts such rows and names some.
    """
    try:
        table = read_table(file, SCORES, ValidateConfig(), limit=0)
    except PrectrError as error:
        raise UsageError(f"--scores {error}") from None
    key = ["request_id", "item_id"]
    values = [name for name in ("score", "free", "probability") if name in table.columns]
    for name in values:
        bad = table.filter(pl.col(name).is_null() | ~pl.col(name).is_finite())
        if bad.height:
            raise UsageError(f"--scores {file}: {bad.height:,} rows have no finite {name}, such as {_named(bad)}.")
    if "probability" in values and not table["probability"].is_between(0, 1).all():
        raise UsageError(f"--scores {file}: column probability holds numbers outside 0..1; are they logits?")
    twice = table.filter(pl.struct(key).is_duplicated())
    missing, surplus = day.shown.join(table, on=key, how="anti"), table.join(day.shown, on=key, how="anti")
    for rows, what in (
        (twice, "are there more than once"),
        (missing, f"of the test day {day.day} are missing"),
        (surplus, f"are no impressions of the test day {day.day}"),
    ):
        if rows.height:
            raise UsageError(
                f"--scores {file}: {rows.height:,} rows {what}, such as {_named(rows)}. Give exactly one row for each "
                "impression of the test day: all models are compared on the same rows."
            )
    joined = day.shown.select(key).join(table, on=key, how="left", maintain_order="left")
    score, free, probability = (
        joined[name].cast(pl.Float64).to_numpy() if name in values else None
        for name in ("score", "free", "probability")
    )
    assert score is not None
    return DayScores(score if free is None else free, score, probability)


def _require_finite(bundle: Path, rows: pl.DataFrame, score: np.ndarray) -> None:
    bad = ~np.isfinite(score)
    if bad.any():
        examples = _named(rows.filter(pl.Series(bad)))
        raise PrectrError(
            f"{bundle}: {bad.sum():,} of {len(score):,} scores are NaN or infinite, such as {examples}; train it again "
            "with a lower train.learning_rate."
        )


def _named(rows: pl.DataFrame) -> str:
    examples = rows.select("request_id", "item_id").head(EXAMPLES).rows()
    return ", ".join(f"request {request} item {item}" for request, item in examples)

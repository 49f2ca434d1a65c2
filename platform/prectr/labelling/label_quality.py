"""Quality of a teacher's labels: agreement with judgments, and with the teacher's second answers [ours].

`DEFINITIONS` defines every figure. Nothing here asks a teacher or reads a file.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from prectr.contracts.schema import GRADES, LEVEL_COLUMNS
from prectr.metrics.agreement import macro_f1, quadratic_kappa
from prectr.metrics.level_calibration import (
    Calibration,
    fit_calibration,
    mixture_weights,
    negative_log_likelihood,
)

DEFINITIONS = {
    "macro_f1": "mean over the four grades of F1, the prediction being the most probable level; 0 for an absent grade",
    "kappa": "quadratic-weighted Cohen's kappa of gold and the expected level, rounded to the nearest grade",
    "accuracy": "share of the pairs whose most probable level is the gold grade",
    "nll": "mean of -log of the gold grade's probability, in nats",
    "ece": "expected calibration error: mean over the pairs of the gap between confidence, the most probable level's "
    "probability, and accuracy in their bin; ten bins of equal mass by confidence, equal confidences in one bin",
    "mean_expected_minus_grade": "mean of the expected level (0 to 3) minus the gold grade; above 0: too lenient",
    "standard_error": "standard error of that mean, clustered by query: the errors of one query's pairs are correlated",
    "verdict": "too lenient or too strict if the mean is more than two standard errors from 0, else neither",
    "share_above": "share of the pairs whose most probable level is above the gold grade",
    "share_below": "share of the pairs whose most probable level is below the gold grade",
}
"""Definitions of the figures of one set of level probabilities, raw or calibrated, on judged pairs. The same dictionary
also holds `confusion` (counts [gold grade][most probable level]) and `reliability` (the bins of `ece`)."""
BINS = 10
"""Bins of `ece`."""
STANDARD_ERRORS = 2.0
"""Distance of the mean from zero, in standard errors, above which the teacher is called too lenient or too strict."""
SHOWN_DISAGREEMENTS = 20
"""Rows of `largest_disagreements`, at most."""


def calibrate_and_judge(
    gold: pl.DataFrame, calibrate: bool, random: pl.DataFrame | None = None, share: float = 1.0
) -> tuple[Calibration, dict[str, Any]]:
    """Fit the calibration on judged validation pairs, and measure raw and calibrated labels on each split.

    The calibration was fitted to `validation`, so only the figures of `held_back` are a measurement.

    Args:
        gold: judged pairs with columns query, item_id, title, split, grade and the teacher's raw level_0..3. Splits
            other than "validation" and "held-back" are ignored.
        calibrate: whether to fit; if false, the calibration changes nothing.
        random: labelled random pairs of validation queries, with the teacher's raw level_0..3; they count as grade 0.
        share: weight of the judged pairs in the fit, 0..1; the random ones have the rest.

    Returns:
        The calibration, and facts for the manifest: `metrics` (`validation_pairs`, `validation_nll_raw`,
        `validation_nll_calibrated`, and the same for `held_back`), `quality` (`validation` and `held_back`, each a
        result of `label_quality`) and `disagreements` (see `largest_disagreements`). A split without pairs is left out.
    """
    splits = {
        split: rows for split in ("validation", "held-back") if len(rows := gold.filter(pl.col("split") == split))
    }
    calibration = Calibration()
    if calibrate and "validation" in splits:
        raw, grades = _levels_and_grades(splits["validation"])
        made = np.zeros((0, len(GRADES))) if random is None else random.select(LEVEL_COLUMNS).to_numpy()
        calibration = fit_calibration(
            np.concatenate([raw, made.astype(np.float64)]),
            np.concatenate([grades, np.zeros(len(made), np.int64)]),
            mixture_weights(len(raw), len(made), share),
        )
    metrics: dict[str, Any] = {}
    quality: dict[str, Any] = {}
    for split, rows in splits.items():
        name = split.replace("-", "_")
        raw, grades = _levels_and_grades(rows)
        quality[name] = label_quality(raw, calibration, grades, rows["query"])
        metrics[f"{name}_pairs"] = len(rows)
        metrics[f"{name}_nll_raw"] = quality[name]["raw"]["nll"]
        metrics[f"{name}_nll_calibrated"] = quality[name]["calibrated"]["nll"]
    measured = splits.get("held-back", splits.get("validation", gold.clear()))
    disagreements = largest_disagreements(measured, calibration)
    return calibration, {"metrics": metrics, "quality": quality, "disagreements": disagreements}


def label_quality(
    raw: np.ndarray, calibration: Calibration, grades: np.ndarray, queries: Sequence[str] | pl.Series
) -> dict[str, Any]:
    """Compute the figures of `DEFINITIONS` for a teacher on judged pairs.

    Args:
        raw: level probabilities of the teacher [n, 4], rows sum to one; n > 0.
        calibration: calibration of the teacher.
        grades: judged grades [n], integers 0..3.
        queries: the pairs' queries [n].

    Returns:
        `pairs`, `queries`, `grades` (number of pairs per grade), and the figures for `raw` and `calibrated`.
    """
    clusters = pl.Series(queries).rank("dense").to_numpy().astype(np.int64) - 1
    return {
        "pairs": len(grades),
        "queries": int(clusters.max()) + 1,
        "grades": np.bincount(grades, minlength=len(GRADES)).tolist(),
        "raw": _figures(raw, grades, clusters),
        "calibrated": _figures(calibration.apply(raw), grades, clusters),
    }


def largest_disagreements(gold: pl.DataFrame, calibration: Calibration) -> list[dict[str, Any]]:
    """List the judged pairs on which calibrated labels and judgments differ most, for people to read.

    Args:
        gold: judged pairs as in `calibrate_and_judge`.
        calibration: calibration of the labels.

    Returns:
        Up to `SHOWN_DISAGREEMENTS` rows with query, item_id, title, grade, expected (0..3) and levels [4]. The largest
        difference between expected level and grade comes first.
    """
    raw, grades = _levels_and_grades(gold)
    levels = calibration.apply(raw)
    expected = levels @ np.arange(len(GRADES))
    order = np.argsort(-np.abs(expected - grades), kind="stable")[:SHOWN_DISAGREEMENTS]
    rows = gold.select("query", "item_id", "title", "grade")[order].to_dicts()
    return [
        row | {"expected": _rounded(expected[index]), "levels": [_rounded(level) for level in levels[index]]}
        for row, index in zip(rows, order, strict=True)
    ]


def flip_rate(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Measure how often a question gets another label when it is asked a second time.

    Args:
        first: level probabilities [n, 4], rows sum to one.
        second: level probabilities [n, 4] of the same questions, asked again.

    Returns:
        `pairs`, and if n > 0: `flipped` (share of pairs whose most probable level changed), `flipped_low` and
        `flipped_high` (95 % Wilson interval), `mean_difference` and `largest_difference` (absolute differences of the
        expected level, in grades), `mean_total_variation` (half the sum of absolute differences, 0..1).
    """
    if not len(first):
        return {"pairs": 0}
    flips = int((first.argmax(axis=1) != second.argmax(axis=1)).sum())
    low, high = _wilson(flips, len(first))
    difference = np.abs((first - second) @ np.arange(first.shape[1]))
    return {
        "pairs": len(first),
        "flipped": _rounded(flips / len(first)),
        "flipped_low": _rounded(low),
        "flipped_high": _rounded(high),
        "mean_difference": _rounded(difference.mean()),
        "largest_difference": _rounded(difference.max()),
        "mean_total_variation": _rounded(0.5 * np.abs(first - second).sum(axis=1).mean()),
    }


def _levels_and_grades(rows: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return rows.select(LEVEL_COLUMNS).to_numpy().astype(np.float64), rows["grade"].to_numpy().astype(np.int64)


def _figures(probabilities: np.ndarray, grades: np.ndarray, clusters: np.ndarray) -> dict[str, Any]:
    from sklearn.metrics import confusion_matrix

    predicted, expected = probabilities.argmax(axis=1), probabilities @ np.arange(len(GRADES))
    kappa = quadratic_kappa(grades, np.rint(expected).astype(np.int64))
    bins = _reliability(probabilities.max(axis=1), predicted == grades)
    gaps = [row["pairs"] * abs(row["confidence"] - row["accuracy"]) for row in bins]
    return {
        "macro_f1": _rounded(macro_f1(grades, predicted, GRADES)),
        "kappa": None if kappa is None else _rounded(kappa),
        "accuracy": _rounded((predicted == grades).mean()),
        "nll": _rounded(negative_log_likelihood(probabilities, grades)),
        "ece": _rounded(sum(gaps) / len(grades)),
        **_bias(expected - grades, clusters),
        "share_above": _rounded((predicted > grades).mean()),
        "share_below": _rounded((predicted < grades).mean()),
        "confusion": confusion_matrix(grades, predicted, labels=GRADES).tolist(),
        "reliability": [{name: _rounded(value) for name, value in row.items()} for row in bins],
    }


def _bias(difference: np.ndarray, clusters: np.ndarray) -> dict[str, Any]:
    """Mean of `difference`, its standard error over clusters, and the verdict; one query gives only the mean."""
    mean, queries = difference.mean(), int(clusters.max()) + 1
    if queries < 2:
        return {"mean_expected_minus_grade": _rounded(mean), "standard_error": None, "verdict": None}
    sums = np.bincount(clusters, weights=difference - mean)
    error = np.sqrt(queries / (queries - 1) * (sums**2).sum()) / len(difference)
    significant = abs(mean) > STANDARD_ERRORS * error
    verdict = "neither" if not significant else "too lenient" if mean > 0 else "too strict"
    return {"mean_expected_minus_grade": _rounded(mean), "standard_error": _rounded(error), "verdict": verdict}


def _reliability(confidence: np.ndarray, right: np.ndarray) -> list[dict[str, Any]]:
    """Bins of equal mass by confidence: mean confidence, accuracy, its 95 % Wilson interval, and number of pairs."""
    # Labels are stored in single precision: confidences that differ by less are equal and share a bin.
    rounded = np.round(confidence, 6)
    below = np.searchsorted(np.sort(rounded), rounded, side="left")
    bin_of_pair = below * BINS // len(confidence)
    bins = []
    for number in np.unique(bin_of_pair):
        in_bin = bin_of_pair == number
        pairs, correct = int(in_bin.sum()), int(right[in_bin].sum())
        low, high = _wilson(correct, pairs)
        bins.append(
            {
                "confidence": float(confidence[in_bin].mean()),
                "accuracy": correct / pairs,
                "low": low,
                "high": high,
                "pairs": pairs,
            }
        )
    return bins


def _wilson(count: int, total: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    interval = binomtest(count, total).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def _rounded(value: Any) -> Any:
    return value if isinstance(value, int) else round(float(value), 4)

"""Data of the report's curves: calibration, tau by true tolerance, position bias."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prectr.evaluation.day import TestDay
from prectr.evaluation.scores import DayScores
from prectr.evaluation.truth import incentive_by_threshold
from prectr.metrics import calibration_bins
from prectr.ranking.bundle import Bundle

POSITIONS = 20
BINS = 10
"""Bins of the calibration curve; more bins would show the noise of single clicks."""


def calibration_curves(day: TestDay, models: Mapping[str, Sequence[DayScores]]) -> dict[str, dict[str, list[float]]]:
    """Compute `predicted` and `actual` click rate in `BINS` bins of equal numbers of rows.

    Takes the first seed of each model that has probabilities.
    """
    curves = {}
    for name, seed_scores in models.items():
        if seed_scores[0].probability is not None and len(day.clicked):
            bins = calibration_bins(day.clicked, seed_scores[0].probability, BINS)
            curves[name] = {"predicted": bins.predicted.tolist(), "actual": bins.actual.tolist()}
    return curves


def incentive_curves(day: TestDay, models: Mapping[str, Sequence[DayScores]]) -> dict[str, Any]:
    """Compute `incentive_by_threshold` of each model with an incentive, for its first seed; empty on a real log."""
    if day.truth is None or "threshold" not in day.truth.columns:
        return {}
    return {
        name: incentive_by_threshold(seed_scores[0].incentive, day.truth)
        for name, seed_scores in models.items()
        if seed_scores[0].incentive is not None and np.ptp(seed_scores[0].incentive) > 0
    }


def position_curves(day: TestDay, bundles: Mapping[str, Path]) -> dict[str, Any]:
    """Compute the effect of each position relative to the first one.

    Compares each bundle's position bias (as odds) with the click rate of the test day and, on simulated logs, with the
    true examination probability.

    Returns:
        `position` [p], `models` by name, `logged` and, on simulated logs, `truth`; each [p], 1 at the first position.
    """
    last = int(min(day.position.max(initial=1), POSITIONS))
    positions = np.arange(1, last + 1)
    curves: dict[str, Any] = {"position": positions.tolist(), "models": {}}
    shown = np.bincount(day.position, minlength=last + 1)[1 : last + 1]
    clicks = np.bincount(day.position, weights=day.clicked, minlength=last + 1)[1 : last + 1]
    rate = np.divide(clicks, shown, out=np.full(last, np.nan), where=shown > 0)
    curves["logged"] = (rate / rate[0] if rate[0] > 0 else np.full(last, np.nan)).tolist()
    for name, path in bundles.items():
        bundle = Bundle.open(path)
        bias = np.array(bundle.position_logits)
        bias = bias[np.minimum(positions, len(bias)) - 1]
        curves["models"][name] = np.exp(bias - bias[0]).tolist()
    if day.truth is not None:
        examined = day.truth["p_exam"].to_numpy()
        total = np.bincount(day.position, weights=examined, minlength=last + 1)[1 : last + 1]
        mean = np.divide(total, shown, out=np.full(last, np.nan), where=shown > 0)
        curves["truth"] = (mean / mean[0]).tolist()
    return curves

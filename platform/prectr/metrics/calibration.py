"""How far click probabilities are to be believed; definitions are in `prectr.metrics`."""

from dataclasses import dataclass

import numpy as np

from prectr.metrics.columns import checked_labels, checked_scores
from prectr.metrics.ties import Ties

LEAST_PROBABILITY = 1e-7
"""Probabilities are read as at least this and at most one minus this, so that no single row makes log loss infinite."""


@dataclass(frozen=True)
class CalibrationBins:
    """Predicted and actual click rate in bins of about equal numbers of rows, from the lowest probability.

    Bins are at most as many as asked for; those without rows are left out.

    Attributes:
        rows: [b] rows of each bin.
        predicted: [b] mean probability.
        actual: [b] share of clicked rows.
    """

    rows: np.ndarray
    predicted: np.ndarray
    actual: np.ndarray


def log_loss(clicked: np.ndarray, probability: np.ndarray) -> float:
    """Mean negative log-likelihood of clicks in nats; NaN without rows.

    Raises:
        ValueError: a probability is NaN or not one, a label is neither 0 nor 1, or the lengths differ.
    """
    losses = row_losses(clicked, probability)
    return float(losses.mean()) if len(losses) else float("nan")


def row_losses(clicked: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of each row's label, [n]; errors as `log_loss`."""
    probability = _checked_probabilities(clicked, probability)
    bounded = np.clip(probability, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return -np.where(checked_labels(clicked), np.log(bounded), np.log1p(-bounded))


def normalised_entropy(clicked: np.ndarray, probability: np.ndarray) -> float:
    """Log loss over the entropy of the rows' click rate; NaN where only one class is there, errors as `log_loss`."""
    loss = log_loss(clicked, probability)
    rate = float(np.mean(checked_labels(clicked))) if len(clicked) else 0.0
    if not 0 < rate < 1:
        return float("nan")
    return float(loss / -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)))


def predicted_over_actual(clicked: np.ndarray, probability: np.ndarray) -> float:
    """Sum of predicted click probabilities over the number of clicks; 1 is calibrated in the large.

    NaN without clicks; errors as `log_loss`.
    """
    probability = _checked_probabilities(clicked, probability)
    clicks = int(checked_labels(clicked).sum())
    return float(np.sum(probability) / clicks) if clicks else float("nan")


def calibration_error(clicked: np.ndarray, probability: np.ndarray, bins: int = 20) -> float:
    """Expected calibration error of click probabilities [n]; NaN without rows, errors as `log_loss`."""
    found = calibration_bins(clicked, probability, bins)
    if not len(found.rows):
        return float("nan")
    return float(np.average(np.abs(found.predicted - found.actual), weights=found.rows))


def calibration_bins(clicked: np.ndarray, probability: np.ndarray, bins: int = 20) -> CalibrationBins:
    """The calibration curve of click probabilities [n]; errors as `log_loss`."""
    of_row = bins_of_rows(clicked, probability, bins)
    rows, predicted, actual = (
        np.bincount(of_row, weights=weights, minlength=bins)
        for weights in (None, np.asarray(probability, np.float64), checked_labels(clicked))
    )
    used = rows > 0
    rows = rows[used]
    return CalibrationBins(rows, predicted[used] / rows, actual[used] / rows)


def bins_of_rows(clicked: np.ndarray, probability: np.ndarray, bins: int = 20) -> np.ndarray:
    """The bin 0 .. bins - 1 of each row, int64 [n], from the lowest probability up; errors as `log_loss`."""
    probability = _checked_probabilities(clicked, probability)
    ties = Ties.of(np.zeros(len(probability), dtype=np.int64), probability)
    # The bin of a block of equal probabilities is that of its middle row.
    middle = 2 * ties.before + ties.size
    return np.minimum(middle * bins // (2 * max(len(probability), 1)), bins - 1)[ties.block_of_row()]


def _checked_probabilities(clicked: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """[n] float64, with room for the rounding of a single-precision sigmoid."""
    probability = checked_scores(probability, clicked).astype(np.float64)
    bad = int(((probability < -1e-6) | (probability > 1 + 1e-6)).sum())
    if bad:
        raise ValueError(f"{bad} of {len(probability)} click probabilities are not between 0 and 1; are they logits?")
    return probability

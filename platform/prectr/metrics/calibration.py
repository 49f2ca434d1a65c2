"""Metrics of click probabilities: log loss, normalised entropy, calibration; `prectr.metrics` defines them."""

from dataclasses import dataclass

import numpy as np

from prectr.metrics.columns import checked_labels, checked_scores
from prectr.metrics.ties import Ties

LEAST_PROBABILITY = 1e-7
"""Log loss clips probabilities to this and 1 minus this, so that one row cannot make it infinite."""


@dataclass(frozen=True)
class CalibrationBins:
    """Predicted and actual click rate in b bins with about equal numbers of rows, the lowest probabilities first.

    Bins without rows are left out, so b can be less than the number requested.

    Attributes:
        rows: [b] number of rows.
        predicted: [b] mean probability.
        actual: [b] share of clicked rows.
    """

    rows: np.ndarray
    predicted: np.ndarray
    actual: np.ndarray


def log_loss(clicked: np.ndarray, probability: np.ndarray) -> float:
    """Mean negative log-likelihood of clicks in nats; NaN without rows.

    Raises:
        ValueError: a probability is NaN or not between 0 and 1, a label is neither 0 nor 1, or the lengths differ.

    Example:
        >>> round(log_loss(np.array([1, 0]), np.array([0.8, 0.2])), 4)  # -ln 0.8
        0.2231
    """
    losses = row_losses(clicked, probability)
    return float(losses.mean()) if len(losses) else float("nan")


def row_losses(clicked: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of each row's label, [n]; errors as `log_loss`."""
    probability = _checked_probabilities(clicked, probability)
    bounded = np.clip(probability, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return -np.where(checked_labels(clicked), np.log(bounded), np.log1p(-bounded))


def normalised_entropy(clicked: np.ndarray, probability: np.ndarray) -> float:
    """Log loss divided by the entropy of the rows' click rate; NaN for rows of one class, errors as `log_loss`.

    Example:
        >>> clicked = np.array([1, 0, 0, 0])
        >>> round(normalised_entropy(clicked, np.full(4, 0.25)), 4)  # predicts the click rate
        1.0
        >>> round(normalised_entropy(clicked, np.array([0.7, 0.1, 0.1, 0.1])), 4)
        0.2991
    """
    loss = log_loss(clicked, probability)
    rate = float(np.mean(checked_labels(clicked))) if len(clicked) else 0.0
    if not 0 < rate < 1:
        return float("nan")
    return float(loss / -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)))


def predicted_over_actual(clicked: np.ndarray, probability: np.ndarray) -> float:
    """Sum of click probabilities divided by the number of clicks; NaN without clicks, errors as `log_loss`.

    1 means that the mean prediction is right; above 1 the model predicts too many clicks.

    Example:
        >>> predicted_over_actual(np.array([1, 0, 0, 0]), np.full(4, 0.5))
        2.0
    """
    probability = _checked_probabilities(clicked, probability)
    clicks = int(checked_labels(clicked).sum())
    return float(np.sum(probability) / clicks) if clicks else float("nan")


def calibration_error(clicked: np.ndarray, probability: np.ndarray, bins: int = 20) -> float:
    """Expected calibration error (ECE) of click probabilities [n]; NaN without rows, errors as `log_loss`.

    Chance alone makes it positive, the more the fewer rows; evaluations use `UserRows.calibration_rms` instead.

    Args:
        clicked: [n] labels.
        probability: [n].
        bins: number of bins, with about equal numbers of rows.

    Example:
        >>> clicked, probability = np.array([0, 0, 1, 1]), np.array([0.1, 0.1, 0.6, 0.6])
        >>> round(calibration_error(clicked, probability, bins=2), 4)  # (|0.1 - 0| + |0.6 - 1|) / 2
        0.25
    """
    curve = calibration_bins(clicked, probability, bins)
    if not len(curve.rows):
        return float("nan")
    return float(np.average(np.abs(curve.predicted - curve.actual), weights=curve.rows))


def calibration_bins(clicked: np.ndarray, probability: np.ndarray, bins: int = 20) -> CalibrationBins:
    """Calibration curve of click probabilities [n]; arguments as `calibration_error`, errors as `log_loss`.

    Example:
        >>> curve = calibration_bins(np.array([0, 0, 1, 1]), np.array([0.1, 0.1, 0.6, 0.6]), bins=2)
        >>> curve.rows.tolist(), curve.predicted.tolist(), curve.actual.tolist()
        ([2, 2], [0.1, 0.6], [0.0, 1.0])
    """
    bin_of_row = bins_of_rows(clicked, probability, bins)
    rows, predicted, actual = (
        np.bincount(bin_of_row, weights=weights, minlength=bins)
        for weights in (None, np.asarray(probability, np.float64), checked_labels(clicked))
    )
    used = rows > 0
    rows = rows[used]
    return CalibrationBins(rows, predicted[used] / rows, actual[used] / rows)


def bins_of_rows(clicked: np.ndarray, probability: np.ndarray, bins: int = 20) -> np.ndarray:
    """Bin of each row, int64 [n], 0 for the lowest probabilities to `bins` - 1; errors as `log_loss`."""
    probability = _checked_probabilities(clicked, probability)
    ties = Ties.of(np.zeros(len(probability), dtype=np.int64), probability)
    # A block of equal probabilities goes to the bin of its middle row.
    middle = 2 * ties.before + ties.size
    return np.minimum(middle * bins // (2 * max(len(probability), 1)), bins - 1)[ties.block_of_row()]


def _checked_probabilities(clicked: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Check probabilities and return them as float64 [n]; allows the rounding of a single-precision sigmoid."""
    probability = checked_scores(probability, clicked).astype(np.float64)
    bad = int(((probability < -1e-6) | (probability > 1 + 1e-6)).sum())
    if bad:
        raise ValueError(f"{bad} of {len(probability)} click probabilities are not between 0 and 1; are they logits?")
    return probability

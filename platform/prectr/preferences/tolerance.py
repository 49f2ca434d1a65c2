"""Tolerance posteriors over a grid of thresholds [ours, MODEL.md 3a].

    P(click | pos, rel, th) = exam(pos) * (eps + a * sigmoid((rel - th) / s))

    symbol   variable          shape
    th       GRID              [G]     thresholds on the relevance scale 0..1
    rel      relevance         [n]     expected relevance level / (k - 1), shifted where the other side is known
    exam     examination       [n]
    log L    log_likelihood    [n, G]  one row's log-likelihood of every threshold

The log-likelihood of a user, query or category is the sum over all shown rows, clicked or not: additive, so partial
sums may be merged, and one user's part may be taken out of a query's sum exactly.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

GRID = np.linspace(0.0, 1.1, 23)
GRID_SIZE = len(GRID)
_TINY = 1e-9


@dataclass(frozen=True)
class ClickParameters:
    """Parameters of the click curve: ceiling `a`, softness `s` (absorbs the relevance model's error), floor `eps`."""

    a: float
    s: float
    eps: float

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def acceptance(relevance: np.ndarray, parameters: ClickParameters) -> np.ndarray:
    """Click probability given examination for every grid threshold, shape [n, G]."""
    distance = (relevance[:, None] - GRID[None, :]) / parameters.s
    return parameters.eps + parameters.a / (1.0 + np.exp(-np.clip(distance, -40, 40)))


def log_likelihood(
    clicked: np.ndarray, relevance: np.ndarray, examination: np.ndarray, parameters: ClickParameters
) -> np.ndarray:
    """Log-likelihood of every threshold for every shown row.

    Args:
        clicked: [n] bool.
        relevance: [n] on 0..1.
        examination: [n] exam(pos) in (0, 1].
        parameters: the click curve.

    Returns:
        [n, G].
    """
    probability = np.clip(examination[:, None] * acceptance(relevance, parameters), _TINY, 1 - _TINY)
    return np.where(clicked[:, None], np.log(probability), np.log1p(-probability))


def posterior(log_likelihood_sum: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Posterior over the grid.

    Args:
        log_likelihood_sum: [m, G] sums over rows; zeros mean nothing was seen.
        prior: [G], or [m, G] for a prior of each key.

    Returns:
        [m, G], rows sum to 1.
    """
    logits = log_likelihood_sum + np.log(np.maximum(prior, _TINY))
    logits = logits - logits.max(axis=1, keepdims=True)
    weight = np.exp(logits)
    return weight / weight.sum(axis=1, keepdims=True)


def moments(distribution: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of distributions over the grid, each [m]."""
    mean = distribution @ GRID
    variance = distribution @ GRID**2 - mean**2
    return mean, np.sqrt(np.maximum(variance, 0.0))


def predictive(distribution: np.ndarray, relevance: np.ndarray, parameters: ClickParameters) -> np.ndarray:
    """Posterior-predictive click probability at the first position, `sum_th post(th) P(click | rel, th)`, shape [n].

    Args:
        distribution: [n, G] posterior of each row's user.
        relevance: [n], already shifted by what is known of the query.
        parameters: the click curve.
    """
    return (distribution * acceptance(relevance, parameters)).sum(axis=1)

"""Calibration of level probabilities on judgments: one temperature and a bias per level [ours].

The calibrated probabilities:

    q_i = softmax_i(a * log p_i + b_i),    a > 0, b_0 = 0, fitted by maximum likelihood on validation queries

Teacher and student are calibrated by it.

| symbol | variable |
|---|---|
| p | `probabilities` |
| a | `Calibration.scale` |
| b | `Calibration.bias` |

A ridge pulls log a and b towards 0, so that few judgments change little.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

RIDGE = 10.0
"""Weight of the squared parameters, in units of log-likelihood. Judged pairs come in tens per query and are far from
independent, so the ridge must be strong enough to resist the peculiarities of a few queries."""
FLOOR = 1e-6
"""Smallest probability whose logarithm is taken."""


@dataclass(frozen=True)
class Calibration:
    """A fitted calibration; the default changes nothing.

    Attributes:
        scale: 1 / temperature.
        bias: [k], added to the scaled log-probabilities.
    """

    scale: float = 1.0
    bias: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrate probabilities: [n, k] in and out, rows sum to one."""
        return softmax(self.scale * np.log(np.maximum(probabilities, FLOOR)) + np.asarray(self.bias), axis=1)


def fit_calibration(probabilities: np.ndarray, grades: np.ndarray, weights: np.ndarray | None = None) -> Calibration:
    """Fit a calibration to judged grades by maximum likelihood with a ridge.

    Args:
        probabilities: [n, k], rows sum to one.
        grades: [n] integers 0..k-1. If n is 0, the calibration changes nothing.
        weights: [n] weight of each pair in the log-likelihood; None: 1.
    """
    levels = probabilities.shape[1]
    pair_weights = np.ones(len(grades)) if weights is None else weights
    if not len(grades):
        return Calibration(1.0, (0.0,) * levels)
    logs = np.log(np.maximum(probabilities, FLOOR))

    def objective(parameters: np.ndarray) -> float:
        bias = np.concatenate([[0.0], parameters[1:]])
        likelihood = log_softmax(np.exp(parameters[0]) * logs + bias, axis=1)[np.arange(len(grades)), grades]
        return float(-pair_weights @ likelihood + RIDGE * (parameters**2).sum())

    fitted = minimize(objective, np.zeros(levels), method="L-BFGS-B").x
    return Calibration(float(np.exp(fitted[0])), (0.0, *(float(value) for value in fitted[1:])))


def negative_log_likelihood(probabilities: np.ndarray, grades: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean of -log q[grade] in nats, for probabilities q [n, k] and integer grades [n]; `weights` [n] as in the fit."""
    logs = np.log(np.maximum(probabilities[np.arange(len(grades)), grades], FLOOR))
    return float(-np.average(logs, weights=weights))


def mixture_weights(judged: int, random: int, share: float) -> np.ndarray:
    """Weights of `judged` pairs, then of `random` ones, that sum to their number; the judged ones have `share` of it.

    Without pairs of one kind, those of the other have all weight.
    """
    if not judged or not random:
        return np.ones(judged + random)
    total = judged + random
    return np.repeat([share * total / judged, (1 - share) * total / random], [judged, random])

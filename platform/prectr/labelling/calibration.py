"""Calibration of the teacher's levels on gold: one temperature and a bias per class [ours: form of MODEL.md 5].

    q_i = softmax_i(a * log p_i + b_i),    a > 0, b_0 = 0, fitted by maximum likelihood on validation queries

Fitted with a small ridge towards a = 1, b = 0, so that few judgments change little.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

RIDGE = 10.0
"""In log-likelihood units. Judged pairs come some tens a query and are far from independent, so the pull must be strong
enough to resist what a few queries have in common."""
FLOOR = 1e-6


@dataclass(frozen=True)
class Calibration:
    """`scale` = 1 / temperature, `bias` [k] added to the scaled log-probabilities."""

    scale: float = 1.0
    bias: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities; [n, k] in and out, rows sum to one."""
        return softmax(self.scale * np.log(np.maximum(probabilities, FLOOR)) + np.asarray(self.bias), axis=1)


def fit_calibration(probabilities: np.ndarray, grades: np.ndarray) -> Calibration:
    """Fit on gold grades.

    Args:
        probabilities: [n, k] of the teacher, rows sum to one.
        grades: [n] integers 0..k-1.
    """
    levels = probabilities.shape[1]
    if not len(grades):
        return Calibration(1.0, (0.0,) * levels)
    logs = np.log(np.maximum(probabilities, FLOOR))

    def objective(parameters: np.ndarray) -> float:
        bias = np.concatenate([[0.0], parameters[1:]])
        likelihood = log_softmax(np.exp(parameters[0]) * logs + bias, axis=1)[np.arange(len(grades)), grades]
        return float(-likelihood.sum() + RIDGE * (parameters**2).sum())

    fitted = minimize(objective, np.zeros(levels), method="L-BFGS-B").x
    return Calibration(float(np.exp(fitted[0])), (0.0, *(float(value) for value in fitted[1:])))


def negative_log_likelihood(probabilities: np.ndarray, grades: np.ndarray) -> float:
    """Mean of -log q[grade], nats."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(grades)), grades], FLOOR)).mean())

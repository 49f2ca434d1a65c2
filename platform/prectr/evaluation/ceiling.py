"""Upper bound for mined tolerances: the posterior when everything but the tolerance itself is known [ours].

Relevance, examination, attraction, the click curve, the other side's tolerance and the distribution of tolerances are
the true ones. Only the clicks are random. Mining stays below this bound because it must estimate all of these and
because it lets old clicks fade.
"""

import numpy as np
from scipy.special import expit

from prectr.evaluation.truth import TrueCurve
from prectr.preferences.counting import sum_by
from prectr.preferences.tolerance import posterior

THRESHOLDS = 41
ROWS_AT_ONCE = 100_000
_TINY = 1e-12


class Ceiling:
    """Posteriors of the tolerances of K keys, over a grid that spans the true tolerances.

    Args:
        true: [K] true tolerances.
        curve: the true click curve.
    """

    def __init__(self, true: np.ndarray, curve: TrueCurve) -> None:
        self._curve = curve
        self.grid = np.linspace(true.min(), true.max(), THRESHOLDS)
        """Tolerances of the grid, [G]."""
        step = max(self.grid[1] - self.grid[0], _TINY)
        nearest = np.minimum(np.rint((true - self.grid[0]) / step).astype(int), THRESHOLDS - 1)
        self._prior = np.bincount(nearest, minlength=THRESHOLDS) / len(true)
        self.log_likelihood = np.zeros((len(true), THRESHOLDS))
        """Log-likelihood of each key at each grid point, [K, G]."""

    def add(
        self,
        key: np.ndarray,
        clicked: np.ndarray,
        relevance: np.ndarray,
        other: np.ndarray,
        chance: np.ndarray,
    ) -> None:
        """Add the log-likelihood of shown rows.

        Args:
            key: [n] 0..K-1.
            clicked: [n] bool.
            relevance: [n] true relevance.
            other: [n] true tolerance of the row's other side: of the query if the keys are users, and vice versa.
            chance: [n] examination times attraction.
        """
        curve = self._curve
        for start in range(0, len(key), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            threshold = np.clip(curve.base + other[rows, None] + self.grid, curve.least, curve.most)
            accepted = expit((relevance[rows, None] - threshold) / curve.slope)
            click = chance[rows, None] * (curve.floor + (1.0 - curve.floor) * accepted)
            log_chance = np.log(np.maximum(np.where(clicked[rows, None], click, 1.0 - click), _TINY))
            keys, codes = np.unique(key[rows], return_inverse=True)
            self.log_likelihood[keys] += sum_by(codes, log_chance)

    def means(self) -> np.ndarray:
        """Posterior means, [K]."""
        return np.asarray(posterior(self.log_likelihood, self._prior) @ self.grid)

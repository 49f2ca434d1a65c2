"""Sample ratio: did as many users come into each variant as were meant to?

    chi^2 = sum over variants of (observed - expected)^2 / expected,   expected = users * share / sum of shares

A mismatch means that users were lost or sorted on the way, and then no difference of the variants says anything about
the treatment (Fabijan et al., "Diagnosing Sample Ratio Mismatch in Online Controlled Experiments", 2019). The limit on
the probability is low, because every experiment is checked.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc


@dataclass(frozen=True)
class SampleRatio:
    """Observed and intended users, in the order of the variants."""

    observed: list[int]
    intended: list[float]
    """Shares that sum to 1."""
    chi_square: float
    p_value: float

    @classmethod
    def of(cls, observed: np.ndarray, shares: np.ndarray) -> "SampleRatio":
        """Check users [v] of v variants against shares [v] in any unit; there must be a user."""
        intended = shares / shares.sum()
        expected = intended * observed.sum()
        chi_square = float(((observed - expected) ** 2 / expected).sum())
        return cls(
            [int(count) for count in observed],
            [float(share) for share in intended],
            chi_square,
            float(chdtrc(len(observed) - 1, chi_square)),
        )

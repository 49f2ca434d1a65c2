"""Agreement of two graders."""

import numpy as np


def quadratic_kappa(grades: np.ndarray, predicted: np.ndarray) -> float | None:
    """1 - sum (g - h)^2 / sum over independent pairs (g - h)^2, closed form; None where both sides are one constant."""
    chance = np.var(grades) + np.var(predicted) + (np.mean(grades) - np.mean(predicted)) ** 2
    return None if chance == 0 else float(1 - np.mean((grades - predicted) ** 2) / chance)

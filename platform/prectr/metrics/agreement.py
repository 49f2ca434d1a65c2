"""Agreement of two graders of the same items."""

from collections.abc import Sequence

import numpy as np


def quadratic_kappa(grades: np.ndarray, predicted: np.ndarray) -> float | None:
    """Quadratic-weighted Cohen's kappa, in closed form.

        kappa = 1 - mean (g - h)^2 / mean over independent pairs (g - h)^2

    Args:
        grades: numbers [n], g above.
        predicted: numbers [n], h above.

    Returns:
        At most 1 (full agreement); 0 is agreement by chance. None if both sides are the same constant.

    Example:
        >>> quadratic_kappa(np.array([0, 1, 2, 3]), np.array([0, 1, 2, 3]))
        1.0
        >>> quadratic_kappa(np.array([0, 1, 2, 3]), np.array([3, 2, 1, 0]))
        -1.0
    """
    chance = np.var(grades) + np.var(predicted) + (np.mean(grades) - np.mean(predicted)) ** 2
    return None if chance == 0 else float(1 - np.mean((grades - predicted) ** 2) / chance)


def macro_f1(grades: np.ndarray, predicted: np.ndarray, levels: Sequence[int]) -> float:
    """Mean of the F1 scores of `levels`; a level that neither side holds counts as 0.

    Args:
        grades: integers [n].
        predicted: integers [n].
        levels: the grades to average over.
    """
    from sklearn.metrics import f1_score

    return float(f1_score(grades, predicted, labels=levels, average="macro", zero_division=0))

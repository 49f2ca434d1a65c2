"""Sums by key and running sums by key, vectorised."""

import numpy as np


def sum_by(codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum the rows of `values` [n, w] by `codes` [n], which must cover 0..m-1. Returns [m, w]."""
    if len(codes) == 0:
        return np.zeros((0, values.shape[1]))
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    return np.add.reduceat(values[order], starts, axis=0)


def before_each(codes: np.ndarray, values: np.ndarray, retained: np.ndarray | None = None) -> np.ndarray:
    """Sum the earlier rows with the same code, for each row: float64 [n, w].

    Rows must be sorted by code, then time. The function adds the first rows of all codes, then the second ones, and so
    on. It does not subtract cumulative sums, so that a result does not depend on other rows of the block.

    Args:
        codes: [n], equal codes side by side.
        values: [n, w].
        retained: [n] factor of the sum at each row, below 1 if sums decay with time; 1 by default.
    """
    sums = np.zeros(values.shape)
    if not len(codes):
        return sums
    first = np.r_[True, codes[1:] != codes[:-1]]
    start = np.maximum.accumulate(np.where(first, np.arange(len(codes)), 0))
    rank = np.arange(len(codes)) - start
    by_rank = np.argsort(rank, kind="stable")
    bounds = np.searchsorted(rank[by_rank], np.arange(1, rank.max() + 2))
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        rows = by_rank[low:high]
        sums[rows] = sums[rows - 1] + values[rows - 1]
        if retained is not None:
            sums[rows] *= retained[rows, None]
    return sums


def fading(codes: np.ndarray, day: np.ndarray, half_life: float | None) -> np.ndarray | None:
    """Compute `retained` for `before_each`: 2^(-days since the previous row / half_life); None without a half-life.

    Args:
        codes: [n] sorted.
        day: [n] day numbers, ascending inside a code.
        half_life: days after which a sum counts half; None: no decay.
    """
    if half_life is None or not len(codes):
        return None
    gap = np.r_[0, np.diff(day)] * np.r_[False, codes[1:] == codes[:-1]]
    return np.asarray(np.exp2(-gap / half_life))

"""Sums by key, vectorised: one sort, then one reduction."""

import numpy as np


def sum_by(codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum rows of `values` [n, w] by `codes` [n], which must cover 0..m-1. Returns [m, w]."""
    if len(codes) == 0:
        return np.zeros((0, values.shape[1]))
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    return np.add.reduceat(values[order], starts, axis=0)


def before_each(codes: np.ndarray, values: np.ndarray, kept: np.ndarray | None = None) -> np.ndarray:
    """What the earlier rows of its code add up to, for each row: float64 [n, w].

    Rows must be sorted by code, then time. Adds rank by rank rather than subtracting grand totals, so that a result
    does not depend on what else is in the block.

    Args:
        codes: [n], equal codes side by side.
        values: [n, w].
        kept: [n] share of the sum so far that is left at a row, where what is known fades; 1 by default.
    """
    known = np.zeros(values.shape)
    if not len(codes):
        return known
    first = np.r_[True, codes[1:] != codes[:-1]]
    start = np.maximum.accumulate(np.where(first, np.arange(len(codes)), 0))
    rank = np.arange(len(codes)) - start
    by_rank = np.argsort(rank, kind="stable")
    bounds = np.searchsorted(rank[by_rank], np.arange(1, rank.max() + 2))
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        rows = by_rank[low:high]
        known[rows] = known[rows - 1] + values[rows - 1]
        if kept is not None:
            known[rows] *= kept[rows, None]
    return known


def fading(codes: np.ndarray, day: np.ndarray, half_life: float | None) -> np.ndarray | None:
    """`kept` for `before_each`: 2^(-days since the row before / half_life); None where nothing fades.

    Args:
        codes: [n] sorted.
        day: [n] day numbers, ascending inside a code.
        half_life: days after which a sum counts half.
    """
    if half_life is None or not len(codes):
        return None
    gap = np.r_[0, np.diff(day)] * np.r_[False, codes[1:] == codes[:-1]]
    return np.asarray(np.exp2(-gap / half_life))

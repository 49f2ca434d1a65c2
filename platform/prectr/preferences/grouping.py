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


def cumulate_by(codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Running sums of `values` [n, w] inside runs of equal `codes`; rows must be sorted by code, then time.

    Adds rank by rank rather than subtracting grand totals, so that results do not depend on what else is in the block.
    """
    running = values.astype(np.float64, copy=True)
    if not len(codes):
        return running
    first = np.r_[True, codes[1:] != codes[:-1]]
    start = np.maximum.accumulate(np.where(first, np.arange(len(codes)), 0))
    rank = np.arange(len(codes)) - start
    by_rank = np.argsort(rank, kind="stable")
    bounds = np.searchsorted(rank[by_rank], np.arange(1, rank.max() + 2))
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        rows = by_rank[low:high]
        running[rows] += running[rows - 1]
    return running


def exclusive(codes: np.ndarray, running: np.ndarray) -> np.ndarray:
    """Turn running sums into what was known before each row: shifted by one inside a code, zero at its start."""
    before = np.zeros_like(running)
    if len(codes):
        same = np.r_[False, codes[1:] == codes[:-1]]
        before[same] = running[np.flatnonzero(same) - 1]
    return before

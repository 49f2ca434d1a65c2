"""Rows of equal score inside a group: the one structure that all rankings here are computed from.

A block is the rows of one group that share a score. Whatever is said of a rank is said of a block: its rows take the
places `before + 1` to `before + size` of their group, in an order that nobody knows.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ties:
    """The m blocks of n rows, sorted by group and then by score.

    Attributes:
        order: [n] the rows, block by block.
        first: [m] where each block begins in `order`.
        size: [m] rows of the block.
        before: [m] rows of the block's group that come before it.
        group: [m] the block's group.
    """

    order: np.ndarray
    first: np.ndarray
    size: np.ndarray
    before: np.ndarray
    group: np.ndarray

    @classmethod
    def of(cls, codes: np.ndarray, score: np.ndarray) -> "Ties":
        """Sort rows.

        Args:
            codes: int64 [n] group of each row.
            score: [n] without NaN; the lowest score of a group comes first.
        """
        rows = len(score)
        by_score = np.argsort(score)
        # One number holds a row's group and its place by score. Two sorts of plain numbers take half the time of
        # one sort of rows by two columns, and sorting is most of what a metric costs.
        key = codes[by_score]
        key *= rows
        key += np.arange(rows)
        key.sort()
        key %= max(rows, 1)
        order = by_score[key]
        in_order, scores = codes[order], score[order]
        starts_group = np.r_[True, in_order[1:] != in_order[:-1]][:rows]
        starts_block = starts_group | np.r_[True, scores[1:] != scores[:-1]][:rows]
        first = np.flatnonzero(starts_block)
        group_first = np.flatnonzero(starts_group)
        group_of_block = np.cumsum(starts_group[first]) - 1
        return cls(
            order=order,
            first=first,
            size=np.diff(np.r_[first, rows]),
            before=first - group_first[group_of_block],
            group=in_order[first],
        )

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum of the rows' values [n] in each block, [m] floats."""
        ordered = np.asarray(values, dtype=np.float64)[self.order]
        return np.add.reduceat(ordered, self.first) if len(self.first) else np.zeros(0)

    def block_of_row(self) -> np.ndarray:
        """[n] the block of each row, in the rows' own order."""
        blocks = np.empty(len(self.order), dtype=np.int64)
        blocks[self.order] = np.repeat(np.arange(len(self.size)), self.size)
        return blocks

"""Blocks of rows with equal scores in a group, from which all ranking metrics are computed.

A block holds the rows of one group that share a score. Its rows occupy ranks `before + 1` to `before + size` of the
group, in random order, so a metric works on blocks and not on single ranks.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ties:
    """The m blocks of n rows, sorted by group and then by score.

    Attributes:
        order: [n] the rows, block by block.
        first: [m] index in `order` of each block's first row.
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
        """Sort rows into blocks.

        Args:
            codes: int64 [n] group of each row.
            score: [n] without NaN; the lowest score of a group comes first.
        """
        rows = len(score)
        by_score = np.argsort(score)
        # One integer holds a row's group and its rank by score. Two sorts of integers take half the time of one sort
        # by two columns, and sorting dominates the cost of a metric.
        key = codes[by_score]
        key *= rows
        key += np.arange(rows)
        key.sort()
        key %= max(rows, 1)
        order = by_score[key]
        sorted_codes, sorted_scores = codes[order], score[order]
        starts_group = np.r_[True, sorted_codes[1:] != sorted_codes[:-1]][:rows]
        starts_block = starts_group | np.r_[True, sorted_scores[1:] != sorted_scores[:-1]][:rows]
        first = np.flatnonzero(starts_block)
        group_first = np.flatnonzero(starts_group)
        group_of_block = np.cumsum(starts_group[first]) - 1
        return cls(
            order=order,
            first=first,
            size=np.diff(np.r_[first, rows]),
            before=first - group_first[group_of_block],
            group=sorted_codes[first],
        )

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum of the rows' values [n] in each block, [m] floats."""
        ordered = np.asarray(values, dtype=np.float64)[self.order]
        return np.add.reduceat(ordered, self.first) if len(self.first) else np.zeros(0)

    def block_of_row(self) -> np.ndarray:
        """Block of each row, int64 [n], in the original order of rows."""
        blocks = np.empty(len(self.order), dtype=np.int64)
        blocks[self.order] = np.repeat(np.arange(len(self.size)), self.size)
        return blocks

"""Dealing rows into batches so that rows of one group meet.

A batch in which a pair of query and item occurs eight times encodes its text once for eight rows. Groups are cut into
small pieces and the pieces are shuffled, so that a batch still holds many groups.
"""

import numpy as np


def deal(group: np.ndarray, piece: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """All rows once, in pieces of at most `piece` rows of one group, rows of a group shuffled.

    Args:
        group: int [n], equal for rows that should meet.
        piece: most rows of a group that stay together.
        generator: of the shuffle.

    Returns:
        rows in the order of their groups [n], and the number of the piece of each [n], ascending.
    """
    rows = np.lexsort((generator.random(len(group)), group))
    ordered = group[rows]
    first = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    in_group = np.arange(len(rows)) - np.repeat(first, np.diff(first, append=len(rows)))
    return rows, np.cumsum(in_group % piece == 0) - 1


def shuffled(group: np.ndarray, piece: int, generator: np.random.Generator) -> np.ndarray:
    """All rows once, the pieces of `deal` in random order: int64 [n]; `piece` 1 is a plain permutation."""
    if piece == 1:
        return generator.permutation(len(group))
    rows, number = deal(group, piece, generator)
    if not len(rows):
        return rows
    place = generator.permutation(number[-1] + 1)
    return rows[np.argsort(place[number], kind="stable")]

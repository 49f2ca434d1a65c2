"""Orders of training rows that keep a few rows of one group together.

If a query-item pair occurs eight times in a batch, its text is encoded once for the eight rows. Groups are cut into
small pieces and the pieces are shuffled, so that a batch still holds rows of many groups.
"""

import numpy as np


def deal(group: np.ndarray, piece: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sort all rows by group, shuffle them within their group, and cut each group into pieces of at most `piece` rows.

    Args:
        group: int [n]; rows with equal values belong together.
        piece: most rows in a piece.
        generator: random generator of the shuffle.

    Returns:
        row numbers in the order of their groups [n], and the number of each row's piece [n], ascending.
    """
    rows = np.lexsort((generator.random(len(group)), group))
    ordered = group[rows]
    first = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    in_group = np.arange(len(rows)) - np.repeat(first, np.diff(first, append=len(rows)))
    return rows, np.cumsum(in_group % piece == 0) - 1


def shuffled(group: np.ndarray, piece: int, generator: np.random.Generator) -> np.ndarray:
    """Row numbers int64 [n]: the pieces of `deal` in random order. With `piece` 1 it is a plain permutation."""
    if piece == 1:
        return generator.permutation(len(group))
    rows, piece_numbers = deal(group, piece, generator)
    if not len(rows):
        return rows
    new_places = generator.permutation(piece_numbers[-1] + 1)
    return rows[np.argsort(new_places[piece_numbers], kind="stable")]

"""Checks of the columns that metrics take: equal lengths, no NaN, labels 0 or 1, no missing group."""

import numpy as np
import pyarrow as pa


def checked_scores(score: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """Check scores and return them as a float array [n].

    Args:
        score: [n].
        others: columns of the same rows.

    Raises:
        ValueError: a score is NaN, or a column differs in length.
    """
    score = np.asarray(score)
    if score.dtype not in (np.float32, np.float64):
        score = score.astype(np.float64)
    for other in others:
        if len(other) != len(score):
            raise ValueError(f"{len(score)} scores for {len(other)} rows; pass columns of equal length.")
    bad = int(np.isnan(score).sum())
    if bad:
        raise ValueError(f"{bad} of {len(score)} scores are NaN; NaN cannot be ranked.")
    return score


def checked_labels(clicked: np.ndarray) -> np.ndarray:
    """Check labels and return them as booleans [n].

    Raises:
        ValueError: a label is neither 0 nor 1.
    """
    clicked = np.asarray(clicked)
    if clicked.dtype != bool:
        bad = int(((clicked != 0) & (clicked != 1)).sum())
        if bad:
            raise ValueError(f"{bad} of {len(clicked)} labels are neither 0 nor 1.")
    return clicked.astype(bool)


def group_codes(group: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the groups of rows from 0, without gaps.

    Args:
        group: [n] integers or texts; rows with equal values form one group.

    Returns:
        Group number of each row, int64 [n], and the number of groups.

    Raises:
        ValueError: a row has no group.
    """
    group = np.asarray(group)
    if not len(group):
        return np.zeros(0, dtype=np.int64), 0
    if group.dtype.kind in "iu":
        lowest, highest = int(group.min()), int(group.max())
        if highest - lowest < 4 * len(group) + 1024:  # a table of the whole range is cheaper than a sort
            offset = (group - lowest).astype(np.int64)
            used = np.bincount(offset) > 0
            return (np.cumsum(used) - 1)[offset], int(used.sum())
    values = pa.array(group, from_pandas=True)  # reads NaN as null
    if values.null_count:
        raise ValueError(f"{values.null_count} of {len(group)} rows have no group (user, request or list).")
    encoded = values.dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), len(encoded.dictionary)

"""What metrics ask of the columns they are given: one length, no NaN, labels that are 0 or 1, groups with a name."""

import numpy as np
import pyarrow as pa


def checked_scores(score: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """Scores [n] as an array of floats.

    Args:
        score: [n].
        others: columns of the same rows.

    Raises:
        ValueError: a score is NaN, or a column has another number of rows.
    """
    score = np.asarray(score)
    if score.dtype not in (np.float32, np.float64):
        score = score.astype(np.float64)
    for other in others:
        if len(other) != len(score):
            raise ValueError(f"{len(score)} scores for {len(other)} rows; both must be of the same rows.")
    bad = int(np.isnan(score).sum())
    if bad:
        raise ValueError(f"{bad} of {len(score)} scores are NaN; a ranking of them means nothing.")
    return score


def checked_labels(clicked: np.ndarray) -> np.ndarray:
    """Labels [n] as booleans.

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
    """Number the groups of rows.

    Args:
        group: [n] integers or texts; rows of one value are one group.

    Returns:
        The group's number of each row, int64 [n], without gaps from 0; and how many groups there are.

    Raises:
        ValueError: a row has no group.
    """
    group = np.asarray(group)
    if not len(group):
        return np.zeros(0, dtype=np.int64), 0
    if group.dtype.kind in "iu":
        lowest, highest = int(group.min()), int(group.max())
        if highest - lowest < 4 * len(group) + 1024:  # a table of all numbers between is cheaper than sorting the rows
            number = (group - lowest).astype(np.int64)
            used = np.bincount(number) > 0
            return (np.cumsum(used) - 1)[number], int(used.sum())
    values = pa.array(group, from_pandas=True)  # NaN is no name either
    if values.null_count:
        raise ValueError(f"{values.null_count} of {len(group)} rows name no group (user, request or list).")
    encoded = values.dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), len(encoded.dictionary)

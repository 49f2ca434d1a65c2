"""Rows and pairs as plain arrays, and their assembly into the arrays of `prectr.types.RankerInputs`.

Training, offline scoring and serving all end here. Sequences stay jagged until a batch is made; padding is the last
thing that happens to them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from prectr.features.derive import history_counts
from prectr.features.spec import recency_bucket

INPUT_NAMES = (
    "categorical",
    "numeric",
    "match",
    "tolerance",
    "user_behaviours",
    "user_mask",
    "query_behaviours",
    "query_mask",
    "query_preference",
    "history_counts",
    "target",
)


@dataclass(frozen=True)
class PairArrays:
    """What is fixed about P pairs of query and item."""

    fields: np.ndarray  # int32 [P, 4] query bucket, category, brand, price: ids of TARGET_FIELDS
    level: np.ndarray  # int32 [P] most likely level + 1
    match: np.ndarray  # float32 [P, M] scaled; the first k are log-probabilities of the levels
    levels: np.ndarray  # float32 [P, k]


@dataclass(frozen=True)
class Behaviours:
    """Jagged sequences of n rows: `offsets` [n + 1] into the flat arrays."""

    offsets: np.ndarray  # int64
    pair: np.ndarray  # int32, row of PairArrays
    clicked: np.ndarray  # int8
    ts: np.ndarray  # float64 seconds
    group: np.ndarray  # int32 user group; zeros for S_u

    def take(self, rows: np.ndarray) -> "Behaviours":
        """The sequences of some rows."""
        lengths = np.diff(self.offsets)[rows]
        offsets = np.r_[0, np.cumsum(lengths)]
        index = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) + np.repeat(self.offsets[rows], lengths)
        return Behaviours(offsets, self.pair[index], self.clicked[index], self.ts[index], self.group[index])


@dataclass(frozen=True)
class RowArrays:
    """What rankers read of n rows, besides their pairs."""

    pair: np.ndarray  # int32 [n]
    ts: np.ndarray  # float64 [n] seconds
    categorical: np.ndarray  # int32 [n, C]
    numeric: np.ndarray  # float32 [n, N] scaled
    tolerance: np.ndarray  # float32 [n, T] scaled
    query_preference: np.ndarray  # float32 [n, G] scaled
    user: Behaviours
    query: Behaviours

    def __len__(self) -> int:
        return len(self.pair)

    def take(self, rows: np.ndarray) -> "RowArrays":
        """Some rows, in the given order."""
        return RowArrays(
            self.pair[rows],
            self.ts[rows],
            self.categorical[rows],
            self.numeric[rows],
            self.tolerance[rows],
            self.query_preference[rows],
            self.user.take(rows),
            self.query.take(rows),
        )


def ranker_inputs(rows: RowArrays, pairs: PairArrays, user_length: int, query_length: int) -> dict[str, np.ndarray]:
    """The arrays of `RankerInputs` by name, padded to the given lengths (a row's last behaviours are kept)."""
    user, user_mask = _padded(rows.user, rows.ts, pairs, user_length, with_group=False)
    query, query_mask = _padded(rows.query, rows.ts, pairs, query_length, with_group=True)
    return {
        "categorical": rows.categorical.astype(np.int64),
        "numeric": rows.numeric,
        "match": pairs.match[rows.pair],
        "tolerance": rows.tolerance,
        "user_behaviours": user,
        "user_mask": user_mask,
        "query_behaviours": query,
        "query_mask": query_mask,
        "query_preference": rows.query_preference,
        "history_counts": history_counts(user_mask.sum(1), query_mask.sum(1)),
        "target": pairs.fields[rows.pair].astype(np.int64),
    }


def _padded(
    behaviours: Behaviours, now: np.ndarray, pairs: PairArrays, length: int, with_group: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Fields [n, length, S(+1)] in the order of BEHAVIOUR_FIELDS, and the mask of real ones [n, length]."""
    lengths = np.diff(behaviours.offsets)
    row = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(row)) - np.repeat(behaviours.offsets[:-1], lengths)
    kept = place < length
    row, place = row[kept], place[kept]
    pair = behaviours.pair[kept]
    columns = [
        pairs.fields[pair],
        pairs.level[pair, None],
        behaviours.clicked[kept, None] + 1,
        recency_bucket(now[row] - behaviours.ts[kept])[:, None],
    ]
    if with_group:
        columns.append(behaviours.group[kept, None])
    fields = np.concatenate(columns, axis=1)
    padded = np.zeros((len(lengths), length, fields.shape[1]), dtype=np.int64)
    mask = np.zeros((len(lengths), length), dtype=bool)
    padded[row, place] = fields
    mask[row, place] = True
    return padded, mask


def stack(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Named columns as one [n, width] array, in the mapping's order."""
    return np.stack([np.asarray(values, dtype=np.float64) for values in columns.values()], axis=1)

"""Rows and pairs as plain arrays, and their assembly into the arrays of `prectr.contracts.types.RankerInputs`.

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
    """Jagged sequences of m requests: `offsets` [m + 1] into the flat arrays."""

    offsets: np.ndarray  # int64
    pair: np.ndarray  # int32, row of PairArrays
    clicked: np.ndarray  # int8
    ts: np.ndarray  # float64 seconds
    group: np.ndarray  # int32 user group; zeros for S_u

    def padded(self, now: np.ndarray, pairs: PairArrays, length: int, with_group: bool) -> "PaddedBehaviours":
        """The first `length` behaviours of each sequence, as the rankers read them.

        Args:
            now: [m] seconds; what recency counts from.
            pairs: what `pair` points into.
            length: behaviours kept of a sequence.
            with_group: S_q names the user's group, S_u does not.
        """
        lengths = np.diff(self.offsets)
        row = np.repeat(np.arange(len(lengths)), lengths)
        place = np.arange(len(row)) - np.repeat(self.offsets[:-1], lengths)
        kept = place < length
        row, place = row[kept], place[kept]
        pair = self.pair[kept]
        columns = [
            pairs.fields[pair],
            pairs.level[pair, None],
            self.clicked[kept, None] + 1,
            recency_bucket(now[row] - self.ts[kept])[:, None],
        ]
        if with_group:
            columns.append(self.group[kept, None])
        width = pairs.fields.shape[1] + 3 + int(with_group)
        padded = np.zeros((len(lengths), length, width), dtype=np.int32)
        padded[row, place] = np.concatenate(columns, axis=1)
        return PaddedBehaviours(padded, np.minimum(lengths, length))


@dataclass(frozen=True)
class PaddedBehaviours:
    """Sequences of m requests in the order of BEHAVIOUR_FIELDS (S_q: and the user group)."""

    fields: np.ndarray  # int32 [m, length, S]
    lengths: np.ndarray  # int64 [m]

    def rows(self, request: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fields int64 [n, length, S] and mask of the real ones [n, length] of rows of these requests."""
        mask = np.arange(self.fields.shape[1]) < self.lengths[request, None]
        return self.fields[request].astype(np.int64), mask

    def cut(self, length: int) -> "PaddedBehaviours":
        """Only the first `length` behaviours."""
        return PaddedBehaviours(self.fields[:, :length], np.minimum(self.lengths, length))


@dataclass(frozen=True)
class Histories:
    """S_u and S_q of m requests: all rows of a request share them."""

    user: PaddedBehaviours
    query: PaddedBehaviours

    def cut(self, length: int) -> "Histories":
        """Only the first `length` behaviours of each."""
        return Histories(self.user.cut(length), self.query.cut(length))


@dataclass(frozen=True)
class RowArrays:
    """What rankers read of n rows, besides their pairs."""

    pair: np.ndarray  # int32 [n]
    request: np.ndarray  # int64 [n], row of `histories`
    categorical: np.ndarray  # int32 [n, C]
    numeric: np.ndarray  # float32 [n, N] scaled
    tolerance: np.ndarray  # float32 [n, T] scaled
    query_preference: np.ndarray  # float32 [n, G] scaled
    histories: Histories

    def __len__(self) -> int:
        return len(self.pair)

    def take(self, rows: np.ndarray) -> "RowArrays":
        """Some rows, in the given order; their histories stay where they are."""
        return RowArrays(
            self.pair[rows],
            self.request[rows],
            self.categorical[rows],
            self.numeric[rows],
            self.tolerance[rows],
            self.query_preference[rows],
            self.histories,
        )


def ranker_inputs(rows: RowArrays, pairs: PairArrays, behaviours: bool = True) -> dict[str, np.ndarray]:
    """The arrays of `RankerInputs` by name.

    Args:
        rows: B rows.
        pairs: what `rows.pair` points into.
        behaviours: False leaves S_u and S_q out (sequences of length 0), for a ranker that does not read them.
    """
    known = rows.histories
    read = known if behaviours else known.cut(0)
    user, user_mask = read.user.rows(rows.request)
    query, query_mask = read.query.rows(rows.request)
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
        "history_counts": history_counts(*(part.lengths[rows.request] for part in (known.user, known.query))),
        "target": pairs.fields[rows.pair].astype(np.int64),
    }


def stack(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Named columns as one [n, width] array, in the mapping's order."""
    return np.stack([np.asarray(values, dtype=np.float64) for values in columns.values()], axis=1)

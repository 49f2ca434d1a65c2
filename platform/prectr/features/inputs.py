"""Rows and pairs as plain arrays, and their assembly into the arrays of `prectr.contracts.types.RankerInputs`.

Training, offline scoring and serving all build their inputs here. Sequences stay jagged until they are read as a batch;
padding is the last step.
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
    """Features of P pairs of query and item that do not depend on user or time."""

    fields: np.ndarray  # int32 [P, 4] query bucket, category, brand, price: ids of TARGET_FIELDS
    level: np.ndarray  # int32 [P] most likely level + 1
    match: np.ndarray  # float32 [P, M] scaled; the first k are log-probabilities of the levels
    levels: np.ndarray  # float32 [P, k]


@dataclass(frozen=True)
class Behaviours:
    """Jagged sequences of m requests: `offsets` [m + 1] into the flat arrays."""

    offsets: np.ndarray  # int64
    pair: np.ndarray  # int32, index into PairArrays
    clicked: np.ndarray  # int8
    ts: np.ndarray  # float64 seconds
    group: np.ndarray  # int32 user group; zeros for S_u

    def padded(self, now: np.ndarray, pairs: PairArrays, length: int, with_group: bool) -> "PaddedBehaviours":
        """Pad the first `length` behaviours of each sequence to the arrays that rankers read.

        Args:
            now: [m] moment of each request in seconds, from which recency counts back.
            pairs: the pairs that `pair` is an index of.
            length: behaviours of a sequence to keep.
            with_group: whether to add the user group, which S_q has and S_u has not.
        """
        lengths = np.diff(self.offsets)
        row = np.repeat(np.arange(len(lengths)), lengths)
        step = np.arange(len(row)) - np.repeat(self.offsets[:-1], lengths)
        used = step < length
        row, step = row[used], step[used]
        pair = self.pair[used]
        columns = [
            pairs.fields[pair],
            pairs.level[pair, None],
            self.clicked[used, None] + 1,
            recency_bucket(now[row] - self.ts[used])[:, None],
        ]
        if with_group:
            columns.append(self.group[used, None])
        width = pairs.fields.shape[1] + 3 + int(with_group)
        padded = np.zeros((len(lengths), length, width), dtype=np.int32)
        padded[row, step] = np.concatenate(columns, axis=1)
        return PaddedBehaviours(padded, np.minimum(lengths, length))


@dataclass(frozen=True)
class PaddedBehaviours:
    """Padded sequences of m requests; fields in the order of BEHAVIOUR_FIELDS, then the user group for S_q."""

    fields: np.ndarray  # int32 [m, length, S]
    lengths: np.ndarray  # int64 [m]

    def rows(self, request: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Select rows by request [n]: fields int64 [n, length, S] and mask of the unpadded behaviours [n, length]."""
        mask = np.arange(self.fields.shape[1]) < self.lengths[request, None]
        return self.fields[request].astype(np.int64), mask

    def cut(self, length: int) -> "PaddedBehaviours":
        """Keep only the first `length` behaviours."""
        return PaddedBehaviours(self.fields[:, :length], np.minimum(self.lengths, length))


@dataclass(frozen=True)
class Histories:
    """S_u and S_q of m requests; all rows of a request share them."""

    user: PaddedBehaviours
    query: PaddedBehaviours

    def cut(self, length: int) -> "Histories":
        """Keep only the first `length` behaviours of each sequence."""
        return Histories(self.user.cut(length), self.query.cut(length))


@dataclass(frozen=True)
class RowArrays:
    """Features of n rows that rankers read, besides those of their pairs."""

    pair: np.ndarray  # int32 [n]
    request: np.ndarray  # int64 [n], index of the request in `histories`
    categorical: np.ndarray  # int32 [n, C]
    numeric: np.ndarray  # float32 [n, N] scaled
    tolerance: np.ndarray  # float32 [n, T] scaled
    query_preference: np.ndarray  # float32 [n, G] scaled
    histories: Histories

    def __len__(self) -> int:
        return len(self.pair)

    def take(self, rows: np.ndarray) -> "RowArrays":
        """Select rows in the order of `rows`; the histories are shared, not copied."""
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
    """Build the arrays of `RankerInputs`, by name.

    Args:
        rows: B rows.
        pairs: the pairs that `rows.pair` is an index of.
        behaviours: False leaves S_u and S_q empty (length 0), for a ranker that does not read them.
    """
    stored = rows.histories
    histories = stored if behaviours else stored.cut(0)
    user, user_mask = histories.user.rows(rows.request)
    query, query_mask = histories.query.rows(rows.request)
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
        "history_counts": history_counts(*(part.lengths[rows.request] for part in (stored.user, stored.query))),
        "target": pairs.fields[rows.pair].astype(np.int64),
    }


def stack(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Stack named columns to one [n, width] array, in the mapping's order."""
    return np.stack([np.asarray(values, dtype=np.float64) for values in columns.values()], axis=1)

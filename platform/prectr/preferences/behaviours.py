"""S_q: what other users did under the same query, as of any day.

A state (query, date) lists at most `limit + 1` behaviours of distinct users, clicked ones first, then the most recent.
One more than is used, because a row's own user is taken out when the list is read, and is in it at most once.
"""

from collections.abc import Iterator
from datetime import date

import numpy as np
import polars as pl

from prectr.preferences.pair_index import PairIndex
from prectr.preferences.shown import ShownRows

BEHAVIOUR_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "query": pl.String,
    "user_id": pl.String,
    "item_id": pl.String,
    "clicked": pl.Boolean,
    "ts": pl.Datetime("us", "UTC"),
    "user_group": pl.Int32,
}
LISTED = ("user_id", "item_id", "clicked", "ts", "user_group")
_BEST_FIRST = ["query", "clicked", "ts", "user_id", "item_id"]
_DESCENDING = [False, True, True, False, False]


def of_part(rows: ShownRows, index: PairIndex, activity: np.ndarray, limit: int) -> pl.DataFrame:
    """The best behaviours of a part: for every query one of each user, the `limit + 1` best.

    Args:
        rows: shown rows with request_id and ts.
        index: the scored pairs.
        activity: [users] activity group of each user before the day.
        limit: behaviours that a list will hold.
    """
    best = _best_of_requests(rows, index)
    user = rows.user.codes[best]
    return best_behaviours(
        pl.DataFrame(
            [
                rows.query.keys.gather(rows.query.codes[best]).alias("query"),
                rows.user.keys.gather(user).alias("user_id"),
                rows.item.keys.gather(rows.item.codes[best]).alias("item_id"),
                pl.Series("clicked", rows.clicked[best]),
                rows.frame["ts"].gather(best),
                pl.Series("user_group", activity[user], pl.Int32),
            ]
        ),
        limit,
    )


def states(days: Iterator[tuple[date, pl.DataFrame]], limit: int) -> Iterator[tuple[date | None, pl.DataFrame]]:
    """Go through the days and say what was known before each.

    Args:
        days: in order, each with its best behaviours.
        limit: behaviours that a list will hold.

    Yields:
        for each day, the best behaviours of all days before it, of the queries that it shows; at the end, with None for
        the day, those of all days and queries.
    """
    known = pl.DataFrame(schema=BEHAVIOUR_SCHEMA)
    for day, today in days:
        shown = today["query"].unique().implode()
        touched, rest = known.filter(pl.col("query").is_in(shown)), known.filter(~pl.col("query").is_in(shown))
        yield day, touched
        known = pl.concat([rest, best_behaviours(pl.concat([touched, today]), limit)])
    yield None, known.sort(_BEST_FIRST, descending=_DESCENDING)


def best_behaviours(rows: pl.DataFrame, limit: int) -> pl.DataFrame:
    """One behaviour of each user for every query, the `limit + 1` best, best first."""
    ordered = rows.select(list(BEHAVIOUR_SCHEMA)).sort(_BEST_FIRST, descending=_DESCENDING)
    one_a_user = ordered.unique(["query", "user_id"], keep="first", maintain_order=True)
    return one_a_user.filter(pl.int_range(pl.len()).over("query") <= limit)


def _best_of_requests(rows: ShownRows, index: PairIndex) -> np.ndarray:
    """The row of each request that counts: a click if there is one, then the first pair in the order of the index.

    A request shows ten rows of one user and query, of which a list holds one, so this leaves a tenth to be sorted.
    """
    request = rows.request
    worth = np.where(rows.clicked, 0, len(index.key)) + rows.place
    best = np.full(len(request), np.iinfo(np.int64).max)
    np.minimum.at(best, request.codes, worth)
    candidates = np.flatnonzero(worth == best[request.codes])
    _, first = np.unique(request.codes[candidates], return_index=True)
    return np.asarray(candidates[first])


ACTIVITY_GROUPS = 8


def activity_group(requests: np.ndarray) -> np.ndarray:
    """1..ACTIVITY_GROUPS from a user's number of earlier requests (doubling buckets); [n]."""
    return np.minimum(np.floor(np.log2(1.0 + requests)), ACTIVITY_GROUPS - 1).astype(np.int32) + 1

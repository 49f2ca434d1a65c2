"""S_q: the behaviours of other users under a query, as of any day.

The list of a query on a day holds at most `limit + 1` behaviours of distinct users: clicked ones first, then the most
recent. Readers use `limit` of them. The spare one is there because a reader removes its own user, who is in the list
at most once.
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


def best_of_part(rows: ShownRows, index: PairIndex, activity: np.ndarray, limit: int) -> pl.DataFrame:
    """Select the `limit + 1` best behaviours of each query in a part, at most one for each user.

    Args:
        rows: shown rows with request_id and ts.
        index: the scored pairs.
        activity: [users] activity group of each user before the day.
        limit: behaviours that a reader of the list uses.
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
    """Compute the behaviour lists before each day, and after the last.

    Args:
        days: in order, each with its best behaviours.
        limit: behaviours that a reader of a list uses.

    Yields:
        for each day, the best behaviours of all earlier days, for the queries that the day shows. At the end, with None
        for the day, the best behaviours of all days and queries.
    """
    lists = pl.DataFrame(schema=BEHAVIOUR_SCHEMA)
    for day, today in days:
        queries = today["query"].unique().implode()
        shown, rest = lists.filter(pl.col("query").is_in(queries)), lists.filter(~pl.col("query").is_in(queries))
        yield day, shown
        lists = pl.concat([rest, best_behaviours(pl.concat([shown, today]), limit)])
    yield None, lists.sort(_BEST_FIRST, descending=_DESCENDING)


def best_behaviours(rows: pl.DataFrame, limit: int) -> pl.DataFrame:
    """Keep the best behaviour of each user and query, then the `limit + 1` best of each query; best first."""
    ordered = rows.select(list(BEHAVIOUR_SCHEMA)).sort(_BEST_FIRST, descending=_DESCENDING)
    best_of_users = ordered.unique(["query", "user_id"], keep="first", maintain_order=True)
    return best_of_users.filter(pl.int_range(pl.len()).over("query") <= limit)


def _best_of_requests(rows: ShownRows, index: PairIndex) -> np.ndarray:
    """Row number of the best row of each request: clicked rows first, then the first pair in the index.

    A list holds one behaviour for each user and query, and a request shows about ten rows of one user and query. So
    about a tenth of the rows is left to sort.
    """
    request = rows.request
    rank = np.where(rows.clicked, 0, len(index.key)) + rows.place
    best_rank = np.full(len(request), np.iinfo(np.int64).max)
    np.minimum.at(best_rank, request.codes, rank)
    candidates = np.flatnonzero(rank == best_rank[request.codes])
    _, first = np.unique(request.codes[candidates], return_index=True)
    return np.asarray(candidates[first])


ACTIVITY_GROUPS = 8


def activity_group(requests: np.ndarray) -> np.ndarray:
    """Activity group 1..ACTIVITY_GROUPS of users by their number of earlier requests, in doubling buckets; [n]."""
    return np.minimum(np.floor(np.log2(1.0 + requests)), ACTIVITY_GROUPS - 1).astype(np.int32) + 1

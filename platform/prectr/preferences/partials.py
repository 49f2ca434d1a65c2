"""Partial aggregates of one task: sums of the rows of one part of a day.

The sums are whole numbers (`prectr.preferences.sums`), so parts and days can be added exactly in any order. A kind of
partial is a frame, sorted by its keys:

    kind            keys                sums
    plain_user      user_id             USER_NAMES; grid by uncorrected relevance
    plain_query     query               the grid by uncorrected relevance
    user            user_id             USER_NAMES; grid by relevance corrected for the query's tolerance
    query           query               LEVEL_NAMES; grid by relevance corrected for the user's tolerance
    category        category            LEVEL_NAMES, as for query
    item            item_id             COUNT_NAMES
    pair            query, item_id      COUNT_NAMES
    price           of, key, bin        clicks by price, of queries and categories
    seen_query      key, user_hash      distinct users (`prectr.preferences.distinct_users`)
    seen_category   key, user_hash      as seen_query
    behaviour       query               candidates of S_q (`prectr.preferences.behaviours`)

No Python runs per row or per key: rows are counted by dense codes.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from prectr.contracts.model_config import LEVELS
from prectr.core.coding import Coded, code_column
from prectr.preferences import behaviours, counting, distinct_users
from prectr.preferences.behaviours import activity_group
from prectr.preferences.counting import examined_and_clicks, level_sums
from prectr.preferences.shown import ShownReader, ShownRows, log_prices
from prectr.preferences.sums import COUNT_NAMES, LEVEL_NAMES, USER_NAMES, columns
from prectr.preferences.tolerance import GRID_SIZE, LogLikelihoodTable

PLAIN_COLUMNS = ("request_id",)
COLUMNS = ("request_id", "ts", "price")
"""Columns of the log that the second pass reads besides keys, position and click; PLAIN_COLUMNS: the first pass."""

MAIN_KINDS = ("user", "query", "category", "item", "pair", "price", "seen_query", "seen_category", "behaviour")
"""Kinds of partials that the second pass writes."""

Frames = dict[str, pl.DataFrame]


@dataclass(frozen=True)
class Centres:
    """Tolerances and activity of a part's users and queries on the morning of its day, by their codes.

    Attributes:
        user: [users] tolerance minus the mean of the user prior, in lattice steps.
        query: [queries] tolerance minus the mean of the query prior, in lattice steps.
        requests: [users] number of the user's earlier requests.
    """

    user: np.ndarray
    query: np.ndarray
    requests: np.ndarray

    @classmethod
    def none(cls, rows: ShownRows) -> "Centres":
        """Centres without any correction."""
        return cls(np.zeros(len(rows.user), np.int16), np.zeros(len(rows.query), np.int16), np.zeros(len(rows.user)))


def plain_partials(rows: ShownRows, reader: ShownReader, table: LogLikelihoodTable) -> Frames:
    """Compute the partials of the first pass, from uncorrected relevance."""
    cells = table.cells(rows.clicked, rows.position, reader.index.expected[rows.place])
    grid = table.sums(rows.query.codes, len(rows.query), cells)
    return {
        "plain_user": _keyed("user_id", rows.user.keys, user_sums(rows, cells, table), USER_NAMES),
        "plain_query": _keyed("query", rows.query.keys, grid, LEVEL_NAMES[:GRID_SIZE]),
    }


def partials(
    rows: ShownRows, reader: ShownReader, table: LogLikelihoodTable, centres: Centres, behaviours_per_query: int
) -> Frames:
    """Compute the partials of the second pass: users and queries are corrected for each other's tolerance.

    Args:
        rows: shown rows, read with COLUMNS.
        reader: the reader of the rows.
        table: the fitted click curve.
        centres: tolerances on the morning of the day.
        behaviours_per_query: behaviours of other users that a query's list holds.
    """
    index, catalogue = reader.index, reader.catalogue
    expected = index.expected[rows.place]
    user_cells = table.cells(rows.clicked, rows.position, expected - centres.query[rows.query.codes])
    query_cells = table.cells(rows.clicked, rows.position, expected - centres.user[rows.user.codes])
    level, log_price = index.level[rows.place], log_prices(reader.price(rows))
    category = Coded(catalogue.category[rows.item_place], catalogue.categories)
    shown_pair = _dense_places(rows.place, len(index.key))

    def sums_by(keys: Coded) -> pl.DataFrame:
        sums = level_sums(
            keys.codes,
            len(keys),
            cells=query_cells,
            level=level,
            position=rows.position,
            clicked=rows.clicked,
            log_price=log_price,
            table=table,
        )
        return pl.DataFrame([keys.keys.alias("key"), *columns(sums, LEVEL_NAMES)])

    by_category = sums_by(category).filter(pl.sum_horizontal(f"impressions_{level}" for level in range(LEVELS)) > 0)
    pair_counts = _counts(rows, shown_pair.codes, len(shown_pair.places), table)
    activity = activity_group(centres.requests)
    return {
        "user": _keyed("user_id", rows.user.keys, user_sums(rows, user_cells, table), USER_NAMES),
        "query": sums_by(rows.query).rename({"key": "query"}).sort("query"),
        "category": by_category.rename({"key": "category"}).sort("category"),
        "item": _keyed("item_id", rows.item.keys, _counts(rows, rows.item.codes, len(rows.item), table), COUNT_NAMES),
        "pair": pl.DataFrame(
            [
                index.queries.gather(index.key[shown_pair.places] // len(index.items)).alias("query"),
                index.items.gather(index.key[shown_pair.places] % len(index.items)).alias("item_id"),
                *columns(pair_counts, COUNT_NAMES),
            ]
        ),
        "price": counting.clicked_prices(rows, category, log_price),
        "seen_query": distinct_users.seen(rows, rows.query),
        "seen_category": distinct_users.seen(rows, category),
        "behaviour": behaviours.best_of_part(rows, index, activity, behaviours_per_query),
    }


def user_sums(rows: ShownRows, cells: np.ndarray, table: LogLikelihoodTable) -> np.ndarray:
    """Compute the columns USER_NAMES of each user, int64 [users, USER_WIDTH].

    A request counts once for its user. A request whose rows lie in two parts counts in both.
    """
    codes, count = rows.user.codes, len(rows.user)
    requests = np.bincount(codes[request_starts(rows)], minlength=count)
    counts = examined_and_clicks(codes, count, rows.position, rows.clicked, table)
    return np.concatenate([table.sums(codes, count, cells), requests[:, None], counts], axis=1)


def request_starts(rows: ShownRows) -> np.ndarray:
    """Find the first row of each request; returns row numbers."""
    request = rows.frame["request_id"]
    runs = np.flatnonzero((request != request.shift(1)).fill_null(True).to_numpy())
    _, first = np.unique(code_column(request.gather(runs)).codes, return_index=True)
    return np.asarray(runs[first])


def _counts(rows: ShownRows, codes: np.ndarray, count: int, table: LogLikelihoodTable) -> np.ndarray:
    """Compute the columns COUNT_NAMES of each key, int64 [count, 3]."""
    shown = np.bincount(codes, minlength=count)[:, None]
    return np.concatenate([shown, examined_and_clicks(codes, count, rows.position, rows.clicked, table)], axis=1)


def _keyed(name: str, keys: pl.Series, sums: np.ndarray, names: tuple[str, ...]) -> pl.DataFrame:
    return pl.DataFrame([keys.alias(name), *columns(sums, names)]).sort(name)


@dataclass(frozen=True)
class _DensePlaces:
    """Distinct places [m], ascending, and the code of each row's place [n]."""

    places: np.ndarray
    codes: np.ndarray


def _dense_places(place: np.ndarray, size: int) -> _DensePlaces:
    if size > 4 * len(place):
        return _DensePlaces(*np.unique(place, return_inverse=True))
    shown = np.bincount(place, minlength=size) > 0
    return _DensePlaces(np.flatnonzero(shown), (np.cumsum(shown) - 1)[place])

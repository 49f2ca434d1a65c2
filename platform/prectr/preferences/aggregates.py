"""Additive partial aggregates of one block of shown rows, and their merge into running totals by day.

Every partial is a row `(kind, key, date, part, sums)`. What `sums` holds depends on the kind:

    kind      key         sums
    user      user_id     tolerance grid [G], requests, exam, clicks
    query     query       tolerance grid [G], then LEVEL_SUMS: impressions, exam and clicks of each level [3 * k],
                          requests, users, log-price sum of clicks, priced clicks
    category  category    as query
    total     ""          as query
    item      item_id     impressions, exam, clicks
    pair      pair        impressions, exam, clicks

Users of a query are counted a file at a time, because partials must add up: one who returns in another file, and so on
another day, counts again. Whoever takes a user's own part out of a sum counts in the same way.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from prectr.model_config import LEVELS
from prectr.preferences.grouping import cumulate_by, sum_by
from prectr.preferences.tolerance import GRID_SIZE, ClickParameters, log_likelihood

USER_WIDTH = GRID_SIZE + 3
LEVEL_WIDTH = GRID_SIZE + 3 * LEVELS + 4
KINDS = ("user", "query", "category", "total", "item", "pair")


@dataclass(frozen=True)
class LevelSums:
    """The additive sums of queries and categories by name; each array is [m] or [m, k]."""

    grid: np.ndarray
    impressions: np.ndarray
    examined: np.ndarray
    clicks: np.ndarray
    requests: np.ndarray
    users: np.ndarray
    log_price: np.ndarray
    priced_clicks: np.ndarray

    @classmethod
    def split(cls, sums: np.ndarray) -> "LevelSums":
        """Name the columns of a [m, LEVEL_WIDTH] array."""
        grid, rest = sums[:, :GRID_SIZE], sums[:, GRID_SIZE:]
        impressions, examined, clicks = (rest[:, part * LEVELS : (part + 1) * LEVELS] for part in range(3))
        tail = rest[:, 3 * LEVELS :]
        return cls(grid, impressions, examined, clicks, tail[:, 0], tail[:, 1], tail[:, 2], tail[:, 3])


def level_row_sums(rows: pl.DataFrame, grid: np.ndarray) -> np.ndarray:
    """The additive columns of single rows, [n, LEVEL_WIDTH]; `requests` and `users` are left 0, they are not per row.

    Args:
        rows: level, exam, clicked, log_price (null where unknown).
        grid: [n, G] log-likelihoods.
    """
    level = rows["level"].to_numpy()
    one_hot = np.zeros((rows.height, LEVELS))
    one_hot[np.arange(rows.height), level] = 1.0
    exam = rows["exam"].to_numpy()[:, None]
    clicked = rows["clicked"].to_numpy()[:, None].astype(np.float64)
    log_price = rows["log_price"].fill_null(np.nan).to_numpy()
    priced = np.where(np.isnan(log_price), 0.0, clicked[:, 0])
    tail = np.stack([np.zeros(rows.height), np.zeros(rows.height), np.nan_to_num(log_price) * priced, priced], axis=1)
    return np.concatenate([grid, one_hot, one_hot * exam, one_hot * clicked, tail], axis=1)


def partial_aggregates(rows: pl.DataFrame, part: int, click: ClickParameters, kinds: tuple[str, ...]) -> pl.DataFrame:
    """Aggregate the shown rows of one file.

    Args:
        rows: request_id, user_id, query, item_id, pair, category, date, level, exam, clicked, log_price, and the
            relevance as the user's threshold sees it (`user_relevance`: shifted by the query) and as the query's does
            (`query_relevance`: shifted by the user).
        part: number of the file; orders the additions, so that results are the same on any number of machines.
        click: the fitted click curve.
        kinds: which aggregates to make.

    Returns:
        kind, key (strings), date, part (int32) and sums (list of float64).
    """
    clicked, exam = rows["clicked"].to_numpy(), rows["exam"].to_numpy()
    made: list[pl.DataFrame] = []

    def emit(kind: str, keys: pl.Series, sums: np.ndarray) -> None:
        made.append(
            pl.DataFrame(
                {
                    "kind": pl.repeat(kind, len(keys), eager=True),
                    "key": keys.cast(pl.String),
                    "date": pl.repeat(rows["date"][0], len(keys), dtype=pl.Date, eager=True),
                    "part": pl.repeat(part, len(keys), dtype=pl.Int32, eager=True),
                    "sums": lists(sums),
                }
            )
        )

    if "user" in kinds:
        codes, keys = coded(rows["user_id"])
        grid = log_likelihood(clicked, rows["user_relevance"].to_numpy(), exam, click)
        requests = distinct_by(rows, "user_id", "request_id")
        counts = sum_by(codes, np.stack([exam, clicked], axis=1))
        emit("user", keys, np.concatenate([sum_by(codes, grid), requests[:, None], counts], axis=1))
    leveled = [kind for kind in ("query", "category", "total") if kind in kinds]
    if leveled:
        grid = log_likelihood(clicked, rows["query_relevance"].to_numpy(), exam, click)
        sums = level_row_sums(rows, grid)
        keyed = rows.with_columns(pl.lit("").alias("total"))
        for kind in leveled:
            codes, keys = coded(keyed[kind])
            by_key = sum_by(codes, sums)
            by_key[:, -4] = distinct_by(keyed, kind, "request_id")
            by_key[:, -3] = distinct_by(keyed, kind, "user_id")
            emit(kind, keys, by_key)
    for counted, column in (("item", "item_id"), ("pair", "pair")):
        if counted in kinds:
            codes, keys = coded(rows[column])
            emit(counted, keys, sum_by(codes, np.stack([np.ones(rows.height), exam, clicked], axis=1)))
    return pl.concat(made)


def merge_partials(partials: pl.DataFrame) -> pl.DataFrame:
    """Merge the partials of some keys into running totals: a row (kind, key, date) holds all days up to `date`.

    What was known before a day D is the last row with `date < D`; `as_of` looks it up.
    """
    made = [partials.clear().drop("part")]
    for kind in KINDS:
        block = partials.filter(pl.col("kind") == kind).sort("key", "date", "part")
        if block.is_empty():
            continue
        sums = matrix(block["sums"])
        daily = (
            block.select("key", "date").with_row_index("row").unique(["key", "date"], keep="first", maintain_order=True)
        )
        codes = np.repeat(np.arange(daily.height), np.diff(np.r_[daily["row"].to_numpy(), block.height]))
        by_day = sum_by(codes, sums)
        key_codes, _ = coded(daily["key"])
        made.append(
            daily.select(
                pl.lit(kind).alias("kind"),
                "key",
                "date",
                lists(cumulate_by(key_codes, by_day)).alias("sums"),
            )
        )
    return pl.concat(made)


def as_of(wanted: pl.DataFrame, totals: pl.DataFrame, key: str, width: int) -> np.ndarray:
    """Totals of what was known before each row's day.

    Args:
        wanted: the columns `key` and `date`, [n] rows in any order.
        totals: one kind's running totals (key, date, sums).
        key: the column of `wanted` that holds the key.
        width: columns of the sums.

    Returns:
        [n, width]; zeros where nothing was known.
    """
    rows = wanted.select(pl.col(key).cast(pl.String).alias("key"), "date").with_row_index("row")
    known = totals.select("key", "date", pl.int_range(pl.len(), dtype=pl.Int64).alias("total")).sort("date")
    joined = rows.sort("date").join_asof(
        known, on="date", by="key", strategy="backward", allow_exact_matches=False, check_sortedness=False
    )
    found = joined.sort("row")["total"]
    result = np.zeros((wanted.height, width))
    hit = found.is_not_null().to_numpy()
    if hit.any():
        result[hit] = matrix(totals["sums"])[found.drop_nulls().to_numpy()]
    return result


def lists(array: np.ndarray) -> pl.Series:
    """A [n, width] array as a list column, without a Python call per row."""
    return pl.Series(np.ascontiguousarray(array, dtype=np.float64)).arr.to_list()


def matrix(lists: pl.Series) -> np.ndarray:
    """A list column whose lists are equally long as [n, width]."""
    return lists.explode().to_numpy().reshape(len(lists), -1)


def coded(column: pl.Series) -> tuple[np.ndarray, pl.Series]:
    """Dense codes 0..m-1 of a column's values in sorted order, and those values."""
    keys = column.unique().sort()
    codes = column.to_frame("key").join(
        keys.to_frame("key").with_row_index("code"), on="key", how="left", maintain_order="left"
    )["code"]
    return codes.to_numpy().astype(np.int64), keys


def distinct_by(rows: pl.DataFrame, key: str, value: str) -> np.ndarray:
    """Distinct values of a column for each key, keys in sorted order, [m]."""
    return rows.group_by(key).agg(pl.col(value).n_unique()).sort(key)[value].to_numpy().astype(np.float64)

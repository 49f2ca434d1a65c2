"""A block of users' shown rows -> what was known of each user before each row, exactly.

All functions take the whole log of some users (a block of the shuffle by user), sorted by user and time. Rows of one
user with the same timestamp form a *moment*: nothing of a moment is known to any of its rows.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from prectr.preferences.aggregates import coded, level_row_sums
from prectr.preferences.fit import PreferenceModel
from prectr.preferences.grouping import cumulate_by, exclusive, sum_by
from prectr.preferences.tolerance import log_likelihood

ORDER = ["user_id", "ts", "request_id", "position"]


@dataclass(frozen=True)
class Jagged:
    """Lists of different lengths: row i holds `values[offsets[i]:offsets[i + 1]]`."""

    values: np.ndarray
    offsets: np.ndarray

    def to_series(self, content: pl.Series) -> pl.Series:
        """As a polars list column of `content`, of which the entries are row numbers."""
        values = content.gather(self.values).to_arrow(compat_level=pl.CompatLevel.oldest())
        lists = pl.from_arrow(pa.LargeListArray.from_arrays(pa.array(self.offsets, pa.int64()), values))
        assert isinstance(lists, pl.Series)
        return lists


@dataclass(frozen=True)
class UserBlock:
    """Sorted rows of some users, with dense codes of user and moment."""

    rows: pl.DataFrame
    user: np.ndarray
    moment: np.ndarray
    moment_user: np.ndarray
    """[moments] the user of each moment."""

    @classmethod
    def of(cls, rows: pl.DataFrame) -> "UserBlock":
        """Sort a block and code its users and moments."""
        ordered = rows.sort(ORDER)
        user, _ = coded(ordered["user_id"])
        ts = ordered["ts"].to_physical().to_numpy()
        new = np.r_[True, (user[1:] != user[:-1]) | (ts[1:] != ts[:-1])]
        moment = np.cumsum(new) - 1
        return cls(ordered, user, moment, user[new])

    def before(self, values: np.ndarray) -> np.ndarray:
        """Sum of a user's rows before each row's moment: [n, w] -> [n, w]."""
        known = exclusive(self.moment_user, self._running(values))
        return known[self.moment]

    def after_all(self, values: np.ndarray) -> np.ndarray:
        """Sum of all rows of each user: [n, w] -> [users, w]."""
        last = np.r_[self.moment_user[1:] != self.moment_user[:-1], True]
        return self._running(values)[last]

    def _running(self, values: np.ndarray) -> np.ndarray:
        return cumulate_by(self.moment_user, sum_by(self.moment, values))

    def before_within(self, column: str, values: np.ndarray) -> np.ndarray:
        """As `before`, but of the user's earlier rows with the same value of `column`; null counts as a value."""
        return self._known_within(column, self.moment, values)

    def earlier_days_within(self, column: str, values: np.ndarray) -> np.ndarray:
        """The user's own part of `column`'s daily totals: earlier days' rows with the same value, [n, w]."""
        return self._known_within(column, self.rows["date"].to_physical().to_numpy().astype(np.int64), values)

    def _known_within(self, column: str, time: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Sums of rows of the same user and the same value of `column` with a strictly smaller `time`, [n, w]."""
        key, keys = coded(self.rows[column].cast(pl.String).fill_null(""))
        order = np.lexsort((time, key, self.user))
        group = self.user[order] * max(len(keys), 1) + key[order]
        starts = np.r_[True, (np.diff(group) != 0) | (np.diff(time[order]) != 0)]
        cell = np.cumsum(starts) - 1
        known = exclusive(group[starts], cumulate_by(group[starts], sum_by(cell, values[order])))
        result = np.empty(values.shape)
        result[order] = known[cell]
        return result


def user_sums(block: UserBlock, model: PreferenceModel) -> np.ndarray:
    """Additive user columns of each row, [n, USER_WIDTH]: tolerance grid, requests, exam, clicks.

    A request counts once, at its first row.
    """
    rows = block.rows
    clicked, exam = rows["clicked"].to_numpy(), rows["exam"].to_numpy()
    grid = log_likelihood(clicked, rows["user_relevance"].to_numpy(), exam, model.click)
    first_of_request = rows.select(pl.struct("user_id", "request_id").is_first_distinct()).to_series().to_numpy()
    return np.concatenate([grid, np.stack([first_of_request, exam, clicked], axis=1).astype(np.float64)], axis=1)


def click_sums(block: UserBlock) -> np.ndarray:
    """[n, 2]: exam and click of each row."""
    return np.stack([block.rows["exam"].to_numpy(), block.rows["clicked"].to_numpy().astype(np.float64)], axis=1)


def price_sums(block: UserBlock) -> np.ndarray:
    """[n, 2]: log-price of each clicked row whose price is known, and 1 for it."""
    log_price = block.rows["log_price"].fill_null(np.nan).to_numpy()
    counts = block.rows["clicked"].to_numpy() & ~np.isnan(log_price)
    return np.stack([np.where(counts, np.nan_to_num(log_price), 0.0), counts.astype(np.float64)], axis=1)


def query_sums(block: UserBlock, model: PreferenceModel) -> np.ndarray:
    """What each row adds to its query's daily totals, [n, LEVEL_WIDTH]; a request and a user count once a file."""
    rows = block.rows
    grid = log_likelihood(
        rows["clicked"].to_numpy(), rows["query_relevance"].to_numpy(), rows["exam"].to_numpy(), model.click
    )
    sums = level_row_sums(rows, grid)
    keys = ["user_id", "query", "date", "file"]
    sums[:, -4] = rows.select(pl.struct(*keys, "request_id").is_first_distinct()).to_series().to_numpy()
    sums[:, -3] = rows.select(pl.struct(keys).is_first_distinct()).to_series().to_numpy()
    return sums


def pair_sums(block: UserBlock) -> np.ndarray:
    """What each row adds to its pair's daily totals, [n, 3]."""
    return np.concatenate([np.ones((block.rows.height, 1)), click_sums(block)], axis=1)


def recent_clicks(block: UserBlock, limit: int) -> Jagged:
    """S_u: for each row the block's row numbers of the user's last `limit` clicks before its moment, oldest first."""
    clicked = np.flatnonzero(block.rows["clicked"].to_numpy())
    # Clicks are numbered in (user, time) order, as moments are, so those before a moment end at a searchsorted bound.
    before_moment = np.searchsorted(block.moment[clicked], block.moment, side="left")
    user_start = np.searchsorted(block.user[clicked], block.user, side="left")
    first = np.maximum(user_start, before_moment - limit)
    return Jagged(*_spans(clicked, first, before_moment))


def last_clicks(block: UserBlock, limit: int) -> Jagged:
    """The last `limit` clicks of each user of the block, oldest first: what serving starts from."""
    clicked = np.flatnonzero(block.rows["clicked"].to_numpy())
    users = np.arange(block.user.max() + 1 if len(block.user) else 0)
    start = np.searchsorted(block.user[clicked], users, side="left")
    end = np.searchsorted(block.user[clicked], users, side="right")
    return Jagged(*_spans(clicked, np.maximum(start, end - limit), end))


def _spans(values: np.ndarray, first: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Concatenate `values[first[i]:end[i]]`; returns the values and the offsets."""
    lengths = end - first
    offsets = np.r_[0, np.cumsum(lengths)]
    index = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) + np.repeat(first, lengths)
    return values[index], offsets

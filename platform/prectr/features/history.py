"""A block of users' shown rows -> what was known of each user before each row, exactly.

All functions take the whole log of some users (a block of the shuffle by user). Unexposed candidates may be among the
rows: what was known before them is told, they themselves count for nothing. Rows of one user with the same timestamp
form a *moment*: nothing of a moment is known to any of its rows. What was known fades by days
(`half_life_days` of the preferences): rows of earlier days, never those of the row's own day.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from prectr.core.coding import code_column
from prectr.preferences.counting import before_each, examined_and_clicks, fading, level_sums, price_sums
from prectr.preferences.sums import LEVEL_NAMES, USER_NAMES, fades, scale
from prectr.preferences.tolerance import UNIT, LogLikelihoodTable, bounded_position

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

    def rows(self, places: np.ndarray) -> "Jagged":
        """The lists at some places."""
        return spans(self.values, self.offsets[places], self.offsets[places + 1])


def spans(values: np.ndarray, first: np.ndarray, end: np.ndarray) -> Jagged:
    """The lists `values[first[i]:end[i]]`."""
    lengths = end - first
    offsets = np.r_[0, np.cumsum(lengths)]
    index = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) + np.repeat(first, lengths)
    return Jagged(values[index], offsets)


@dataclass(frozen=True)
class Cells:
    """Rows counted by (group, time), where a group is a user's rows of one key; cells are ordered by both.

    Attributes:
        of_row: [n] cell of each row.
        group: [c] ascending.
        day: [c] number of the day.
    """

    of_row: np.ndarray
    group: np.ndarray
    day: np.ndarray

    @classmethod
    def of(cls, group: np.ndarray, time: np.ndarray, day: np.ndarray) -> "Cells":
        """Number the cells of rows; `time` and `day` must ascend inside a group. All are [n]."""
        order = np.argsort(group, kind="stable")
        ordered, moved = group[order], time[order]
        starts = np.r_[True, (ordered[1:] != ordered[:-1]) | (moved[1:] != moved[:-1])][: len(order)]
        of_row = np.empty(len(order), np.int64)
        of_row[order] = np.cumsum(starts) - 1
        return cls(of_row, ordered[starts], day[order][starts])

    def __len__(self) -> int:
        return len(self.group)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum rows [n, w] by cell, [c, w]."""
        return np.stack([np.bincount(self.of_row, weights=column, minlength=len(self)) for column in values.T], axis=1)

    @property
    def later(self) -> np.ndarray:
        """[c] whether the group has an earlier cell."""
        return np.r_[False, self.group[1:] == self.group[:-1]][: len(self)]

    def before(self, sums: np.ndarray, half_life: float | None, fade: np.ndarray | None = None) -> np.ndarray:
        """What was known of its group before each cell, [c, w].

        Args:
            sums: [c, w] what each cell adds.
            half_life: in days; None: nothing fades.
            fade: bool [w], which columns fade; all by default.
        """
        kept = fading(self.group, self.day, half_life)
        known = before_each(self.group, sums, kept)
        if kept is not None and fade is not None and not fade.all():
            known[:, ~fade] = before_each(self.group, sums[:, ~fade])
        return known

    def after(
        self, sums: np.ndarray, half_life: float | None, as_of: int, fade: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """What is known of each group on the morning of the day `as_of`: the groups [g], ascending, and [g, w]."""
        last = np.r_[~self.later[1:], True][: len(self)]
        known = (self.before(sums, half_life, fade) + sums)[last]
        if half_life is not None:
            left = np.exp2(-(as_of - self.day[last]) / half_life)[:, None]
            known *= left if fade is None else np.where(fade, left, 1.0)
        return self.group[last], known


@dataclass(frozen=True)
class UserBlock:
    """n rows of some users in the order of user and time, their m requests, and their moments."""

    rows: pl.DataFrame
    user: np.ndarray
    """[n] dense codes."""
    users: pl.Series
    """Their ids."""
    moments: Cells
    """The moments of each user."""
    request: np.ndarray
    """[n]"""
    first: np.ndarray
    """[m] first row of each request."""
    day: np.ndarray
    """[n] number of the day."""
    exposed: np.ndarray
    """[n] False: an unexposed candidate."""
    clicked: np.ndarray
    position: np.ndarray
    """[n] bounded."""
    half_life: float | None
    table: LogLikelihoodTable

    @classmethod
    def of(cls, rows: pl.DataFrame, table: LogLikelihoodTable, half_life: float | None) -> "UserBlock":
        """Sort a block and number its users, moments and requests.

        Args:
            rows: of `prectr.features.read`, in any order.
            table: the fitted click curve.
            half_life: in days; None: nothing fades.
        """
        ordered = rows.sort(ORDER)
        new_user, new_moment, new_request = (
            ordered[name].ne_missing(ordered[name].shift(1)).to_numpy() for name in ("user_id", "ts", "request_id")
        )
        user = np.cumsum(new_user) - 1
        day = ordered["date"].to_physical().to_numpy().astype(np.int64)
        request = np.cumsum(new_user | new_moment | new_request) - 1
        return cls(
            rows=ordered,
            user=user,
            users=ordered["user_id"].gather(np.flatnonzero(new_user)),
            moments=Cells.of(user, ordered["ts"].to_physical().to_numpy(), day),
            request=request,
            first=np.flatnonzero(np.r_[True, request[1:] != request[:-1]][: len(request)]),
            day=day,
            exposed=ordered["exposed"].to_numpy(),
            clicked=ordered["clicked"].to_numpy(),
            position=bounded_position(ordered["position"].to_numpy()),
            half_life=half_life,
            table=table,
        )

    @property
    def log_price(self) -> np.ndarray:
        """[n] NaN where unknown."""
        return np.asarray(self.rows["log_price"].to_numpy())

    @property
    def relative_price(self) -> np.ndarray:
        """[n] log-price over the median of the item's category, NaN where unknown."""
        return np.asarray(self.rows["relative_price"].to_numpy())

    def counts(self) -> np.ndarray:
        """[n, 2] exam and click of each row."""
        examined = np.where(self.exposed, self.table.examined[self.position] / UNIT, 0.0)
        return np.stack([examined, self.clicked.astype(np.float64)], axis=1)

    def moment_sums(self) -> np.ndarray:
        """What each moment adds to its user's sums, [moments, USER_WIDTH]. A request counts once."""
        shown, count = self.exposed, len(self.moments)
        moment = self.moments.of_row[shown]
        seen = np.unique(self.request[shown])
        requests = np.bincount(self.moments.of_row[self.first[seen]], minlength=count)[:, None]
        counts = examined_and_clicks(moment, count, self.position[shown], self.clicked[shown], self.table)
        grid = self.table.sums(moment, count, self.rows["user_cell"].to_numpy()[shown])
        return np.asarray(np.concatenate([grid, requests, counts], axis=1) * scale(USER_NAMES))

    def moment_prices(self) -> np.ndarray:
        """Relative price of the clicks of each moment whose price is known, and how many: [moments, 2]."""
        sums = price_sums(self.moments.of_row, len(self.moments), self.clicked, self.relative_price)
        return sums / np.array([UNIT, 1.0])

    def cells(self, column: str, by_day: bool = False) -> tuple[Cells, pl.Series]:
        """Rows counted by (user, value of `column`, moment or day), and the values.

        A group's number is the user's, times the number of values, plus the value's. Null counts as a value, "".
        """
        values = code_column(self.rows[column].cast(pl.String).fill_null(""))
        group = self.user.astype(np.int64) * max(len(values), 1) + values.codes
        return Cells.of(group, self.day if by_day else self.moments.of_row, self.day), values.keys

    def query_sums(self, cells: Cells) -> np.ndarray:
        """What the rows of each cell add to their query's sums, [c, LEVEL_WIDTH]."""
        shown = self.exposed
        sums = level_sums(
            cells.of_row[shown],
            len(cells),
            cells=self.rows["query_cell"].to_numpy()[shown],
            level=self.rows["level"].to_numpy()[shown],
            position=self.position[shown],
            clicked=self.clicked[shown],
            log_price=self.log_price[shown],
            table=self.table,
        )
        return np.asarray(sums * scale(LEVEL_NAMES))

    def user_before(self) -> np.ndarray:
        """[moments, USER_WIDTH] what was known of the user before each moment."""
        return self.moments.before(self.moment_sums(), self.half_life, fades(USER_NAMES))

    def counts_before(self, column: str, by_day: bool = False) -> np.ndarray:
        """[n, 2] exam and clicks of the user's earlier rows (of earlier days) with the same value of `column`."""
        cells, _ = self.cells(column, by_day)
        return np.asarray(cells.before(cells.sums(self.counts()), self.half_life)[cells.of_row])

    def own_query(self) -> tuple[np.ndarray, np.ndarray]:
        """The user's own part of what was known of each request's query: rows of earlier days.

        Returns:
            [m, LEVEL_WIDTH] sums, and [m] whether the user had typed the query before that day.
        """
        cells, _ = self.cells("query", by_day=True)
        place = cells.of_row[self.first]
        return cells.before(self.query_sums(cells), self.half_life)[place], cells.later[place]

    def recent_clicks(self, limit: int) -> Jagged:
        """S_u: for each request, row numbers of the user's last `limit` clicks before its moment, oldest first."""
        clicks = np.flatnonzero(self.clicked)
        moment = self.moments.of_row
        # Clicks are numbered in (user, time) order, as moments are, so those before one end at a searchsorted bound.
        end = np.searchsorted(moment[clicks], moment[self.first], side="left")
        start = np.searchsorted(self.user[clicks], self.user[self.first], side="left")
        return spans(clicks, np.maximum(start, end - limit), end)

    def last_clicks(self, limit: int) -> Jagged:
        """The last `limit` clicks of each user, oldest first: what serving starts from."""
        clicks = np.flatnonzero(self.clicked)
        users = np.arange(len(self.users))
        start = np.searchsorted(self.user[clicks], users, side="left")
        end = np.searchsorted(self.user[clicks], users, side="right")
        return spans(clicks, np.maximum(start, end - limit), end)

"""Point in time: a sample depends only on earlier rows, checked against a slow oracle in plain Python.

The oracle uses no running totals, no as-of joins and no blocks: for every row it goes through the whole log and selects
the rows that the definition allows. A user's own history: strictly earlier moments. Queries, pairs and S_q: other users
on strictly earlier days. Items, categories and the whole log: strictly earlier days. A row of an earlier day counts
2^(-days / half-life), except in the numbers of requests and of users.
"""

import math
import statistics
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from prectr.features.build import raw_state, sample_rows
from prectr.features.derive import SOURCES, RawState, derive
from prectr.features.history import ORDER
from prectr.preferences.behaviours import activity_group
from prectr.preferences.sums import LEVEL_WIDTH, USER_WIDTH
from prectr.preferences.tolerance import GRID, GRID_SIZE, LATTICE, UNIT, log_likelihood, posterior

SEEDS = range(4)
HALF_LIVES = (None, 1.5)
OF_REQUEST = ("user", "user_price", "query", "query_users", "total", "query_prior")
"""Fields of the state with one row for each request."""
Row = dict[str, Any]


class Oracle:
    """Brute force over the rows of a log."""

    def __init__(self, log: Any) -> None:
        mined = log.context.preferences
        self.model, self.half_life = mined.model, mined.config.half_life_days
        self.limit = log.context.spec.query_behaviours
        self.rows: list[Row] = log.shown.sort(ORDER).to_dicts()
        self.pairs = {row["pair"]: row for row in log.pairs.to_dicts()}
        self.category_of = dict(mined.query_category.iter_rows())
        self.list_price = dict(log.items.select("item_id", "price").iter_rows())
        for row in self.rows:
            priced = log.items.drop_nulls("price")
            alike = priced.filter(pl.col("category") == row["category"])
            usual = math.log(statistics.geometric_mean(_middle((alike if len(alike) else priced)["price"])))
            row["relative_price"] = None if row["log_price"] is None else row["log_price"] - usual
            # Rounded as the sums are: relevance to the lattice, all else to 2^-20.
            row["unrounded_exam"] = float(row["position"]) ** -self.model.examination.exponent
            row["exam"] = _rounded(row["unrounded_exam"])
            row["debiased"] = _rounded(row["clicked"] / row["exam"])
            row["plain"] = _steps(row["expected"])
            row["one"] = 1.0
        for row in self.rows:
            row["user_relevance"] = row["plain"] - _steps(self._centre(row, "query"))
            row["query_relevance"] = row["plain"] - _steps(self._centre(row, "user_id"))

    def _centre(self, now: Row, key: str) -> float:
        """Uncorrected tolerance of the row's query or user minus the prior's mean, on the morning of the row's day."""
        prior = self.model.user_prior if key == "user_id" else self._prior(now)
        centre = self.model.user_centre if key == "user_id" else self.model.query_centre
        earlier = [row for row in self.rows if row[key] == now[key] and row["date"] < now["date"]]
        if not earlier:
            return float(prior @ GRID) - centre
        return float(posterior(self._grid(now, earlier, "plain")[None, :], prior)[0] @ GRID) - centre

    def _prior(self, row: Row) -> np.ndarray:
        by_category = self.model.category_query_prior
        return by_category.get(self.category_of.get(row["query"], "?"), self.model.query_prior)

    def _left(self, now: Row, row: Row) -> float:
        return 1.0 if self.half_life is None else 2.0 ** -((now["date"] - row["date"]).days / self.half_life)

    def _sum(self, now: Row, rows: list[Row], name: str) -> float:
        return float(sum(row[name] * self._left(now, row) for row in rows))

    def _grid(self, now: Row, rows: list[Row], relevance: str) -> np.ndarray:
        total = np.zeros(GRID_SIZE)
        for row in rows:
            one = [np.array([value]) for value in (row["clicked"], row[relevance] / LATTICE, row["unrounded_exam"])]
            total += _rounded(log_likelihood(*one, self.model.click)[0]) * self._left(now, row)
        return total

    def user(self, now: Row) -> np.ndarray:
        rows = self._own(now)
        requests = len({row["request_id"] for row in rows})
        counts = [self._sum(now, rows, name) for name in ("exam", "clicked")]
        return np.r_[self._grid(now, rows, "user_relevance"), requests, counts]

    def _own(self, now: Row) -> list[Row]:
        return [row for row in self.rows if row["user_id"] == now["user_id"] and row["ts"] < now["ts"]]

    def _others(self, now: Row, key: str) -> list[Row]:
        return [row for row in self._earlier(now, key) if row["user_id"] != now["user_id"]]

    def _earlier(self, now: Row, key: str | None) -> list[Row]:
        return [r for r in self.rows if r["date"] < now["date"] and (key is None or r[key] == now[key])]

    def levels(self, now: Row, rows: list[Row]) -> np.ndarray:
        by_level = [[row for row in rows if row["level"] == level] for level in range(4)]
        clicked = [row for row in rows if row["clicked"] and row["log_price"] is not None]
        return np.r_[
            self._grid(now, rows, "query_relevance"),
            [self._sum(now, part, "one") for part in by_level],
            [self._sum(now, part, "exam") for part in by_level],
            [self._sum(now, part, "clicked") for part in by_level],
            [self._sum(now, part, "debiased") for part in by_level],
            self._sum(now, clicked, "log_price"),
            self._sum(now, clicked, "one"),
        ]

    def state(self) -> RawState:
        """The state, with a separate request and category for every row."""

        def table(make: Any, width: int) -> np.ndarray:
            return np.array([make(row) for row in self.rows], dtype=np.float64).reshape(len(self.rows), width)

        def counts(now: Row, rows: list[Row]) -> list[float]:
            return [self._sum(now, rows, name) for name in ("exam", "clicked")]

        def own(now: Row, key: str) -> list[Row]:
            return [row for row in self._own(now) if row[key] == now[key]]

        def priced(now: Row) -> list[float]:
            rows = [row for row in self._own(now) if row["clicked"] and row["log_price"] is not None]
            return [self._sum(now, rows, name) for name in ("relative_price", "one")]

        def users(now: Row) -> int:
            return len({row["user_id"] for row in self._others(now, "query")})

        pairs = [self.pairs[row["pair"]] for row in self.rows]
        places = np.arange(len(self.rows))
        return RawState(
            request=places,
            expected=np.array([row["expected"] for row in self.rows]),
            encoder_expected=np.array([pair["encoder_expected"] for pair in pairs], dtype=np.float64),
            levels=np.array([[pair[f"level_{level}"] for level in range(4)] for pair in pairs]),
            source=np.array([SOURCES.index(pair["source"]) for pair in pairs]),
            log_price=_numbers(row["log_price"] for row in self.rows),
            log_list_price=_numbers(
                None if (price := self.list_price[row["item_id"]]) is None else math.log(price) for row in self.rows
            ),
            relative_price=_numbers(row["relative_price"] for row in self.rows),
            user=table(self.user, USER_WIDTH),
            user_price=table(priced, 2),
            user_brand=table(lambda now: counts(now, own(now, "brand")), 2),
            user_category=table(lambda now: counts(now, own(now, "category")), 2),
            query=table(lambda now: self.levels(now, self._others(now, "query")), LEVEL_WIDTH),
            query_users=table(users, 1)[:, 0],
            category=table(lambda now: self.levels(now, self._earlier(now, "category")), LEVEL_WIDTH),
            category_of=places,
            total=table(lambda now: self.levels(now, self._earlier(now, None)), LEVEL_WIDTH),
            item=table(lambda now: counts(now, self._earlier(now, "item_id")), 2),
            pair=table(lambda now: counts(now, self._others(now, "pair")), 2),
            query_prior=np.stack([self._prior(row) for row in self.rows]),
        )

    def own_clicks(self, now: Row) -> list[tuple[int, int]]:
        clicks = [row for row in self._own(now) if row["clicked"]][-self.limit :]
        return [(row["pair"], _microseconds(row)) for row in clicks]

    def others_behaviours(self, now: Row) -> list[tuple[int, int, int, int]]:
        best: dict[str, Row] = {}
        for row in self._others(now, "query"):
            if row["user_id"] not in best or _rank(row) < _rank(best[row["user_id"]]):
                best[row["user_id"]] = row
        chosen = sorted(best.values(), key=lambda row: (*_rank(row)[:2], row["user_id"]))[: self.limit]
        return [(row["pair"], int(row["clicked"]), _microseconds(row), self._group(row)) for row in chosen]

    def _group(self, behaviour: Row) -> int:
        """Activity of a behaviour's user on the morning of that day."""
        requests = {row["request_id"] for row in self._earlier(behaviour, "user_id")}
        return int(activity_group(np.array([len(requests)]))[0])


def _middle(prices: pl.Series) -> list[float]:
    """The one or two prices in the middle: their geometric mean is the median on the log scale."""
    ordered = sorted(prices)
    return ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1]


def _numbers(values: Iterable[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])


def _rounded(value: Any) -> Any:
    return np.rint(value * UNIT) / UNIT


def _steps(relevance: float) -> int:
    return round(relevance * LATTICE)


def _microseconds(row: Row) -> int:
    return round(row["ts"].timestamp() * 1e6)


def _rank(row: Row) -> tuple[bool, float, int]:
    """Clicked first, then the most recent, then the lowest pair."""
    return (not row["clicked"], -row["ts"].timestamp(), row["pair"])


def _samples(log: Any) -> pl.DataFrame:
    """Sample rows of the whole log, computed in two blocks of users."""
    first = pl.col("user_id").is_in(["u0", "u3"])
    blocks = [
        sample_rows(log.rows.filter(part), log.context) for part in (first, ~first) if log.rows.filter(part).height
    ]
    return pl.concat(blocks).sort(ORDER)


def _by_row(state: RawState, name: str) -> np.ndarray:
    values = getattr(state, name)
    if name in OF_REQUEST:
        return values[state.request]
    return values[state.category_of] if name == "category" else values


@pytest.mark.parametrize("half_life", HALF_LIVES)
@pytest.mark.parametrize("seed", SEEDS)
def test_state_before_each_row_equals_the_oracle(
    laboratory: SimpleNamespace, seed: int, half_life: float | None
) -> None:
    log = laboratory.mine(*laboratory.draw_log(seed), half_life=half_life)
    state, expected = raw_state(log.context.block(log.rows), log.context), Oracle(log).state()
    for name in vars(expected).keys() - {"request", "category_of"}:
        np.testing.assert_allclose(_by_row(state, name), _by_row(expected, name), atol=2e-6, err_msg=name)


@pytest.mark.parametrize("half_life", HALF_LIVES)
@pytest.mark.parametrize("seed", SEEDS)
def test_sample_rows_of_blocks_equal_the_oracle(
    laboratory: SimpleNamespace, seed: int, half_life: float | None
) -> None:
    log = laboratory.mine(*laboratory.draw_log(seed), half_life=half_life)
    samples, oracle = _samples(log), Oracle(log)
    state = oracle.state()
    for group, features in derive(state, oracle.model).items():
        for name, values in features.items():
            if group != "match":  # the level log-probabilities come with the pair
                np.testing.assert_allclose(samples[f"{group}.{name}"], values, atol=1e-5, err_msg=f"{group}.{name}")
    assert samples["user_requests"].to_list() == state.user[:, GRID_SIZE].tolist()
    assert samples["cat.activity"].to_list() == activity_group(state.user[:, GRID_SIZE]).tolist()
    own = [list(zip(*lists)) for lists in samples.select("su_pair", "su_ts").iter_rows()]
    assert own == [oracle.own_clicks(row) for row in oracle.rows]
    others = [list(zip(*lists)) for lists in samples.select("sq_pair", "sq_clicked", "sq_ts", "sq_group").iter_rows()]
    assert others == [oracle.others_behaviours(row) for row in oracle.rows]


def test_the_logs_exercise_what_they_should(laboratory: SimpleNamespace) -> None:
    """Check that the random logs hold the cases that the comparisons above are about."""
    logs = [laboratory.mine(*laboratory.draw_log(seed)) for seed in SEEDS]
    samples = pl.concat([_samples(log) for log in logs])
    rows = pl.concat([log.rows for log in logs])
    assert samples["su_pair"].list.len().max() == 2 and samples["sq_pair"].list.len().max() == 2
    assert samples["numeric.pair_examined"].max() > 0 and samples["query_preference.query_users"].max() > 0
    moments = rows.group_by("user_id", "ts").agg(pl.col("request_id").n_unique())
    assert moments["request_id"].max() > 1, "no two requests of a user at the same moment"
    shown = pl.concat([log.shown for log in logs])
    days = shown.group_by("user_id", "query", "date").agg(pl.col("file").n_unique())
    assert days["file"].max() > 1, "no user returns to a query in another file of the day"
    assert rows["brand"].null_count() and rows["log_price"].is_nan().any()


@pytest.mark.parametrize("seed", SEEDS)
def test_flipping_a_click_changes_no_earlier_and_no_own_feature(laboratory: SimpleNamespace, seed: int) -> None:
    """Features depend on no click of their own or a later moment, and on other users' clicks only of earlier days."""
    shown, items, pairs = laboratory.draw_log(seed)
    before = _samples(laboratory.mine(shown, items, pairs))
    features = [name for name in before.columns if name != "clicked"]
    changed_at_all = 0
    for place in range(0, shown.height, 9):
        flipped = shown.with_columns(clicked=pl.col("clicked") ^ (pl.int_range(pl.len()) == place))
        after = _samples(laboratory.mine(flipped, items, pairs))
        row = shown.row(place, named=True)
        own = before["user_id"] == row["user_id"]
        may_know = (own & (before["ts"] > row["ts"])) | (before["date"] > row["date"])
        unchanged = [before[name].eq_missing(after[name]) for name in features]
        changed = ~pl.DataFrame(unchanged).select(pl.all_horizontal(pl.all())).to_series()
        assert not (changed & ~may_know).any()
        changed_at_all += int(changed.sum())
    assert changed_at_all > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_query_statistics_never_hold_the_rows_own_user(laboratory: SimpleNamespace, seed: int) -> None:
    """Flipping all clicks of a user changes neither S_q nor the query and pair sums of that user's rows."""
    shown, items, pairs = laboratory.draw_log(seed)
    own = pl.col("user_id") == "u1"
    logs = [
        laboratory.mine(rows, items, pairs) for rows in (shown, shown.with_columns(clicked=pl.col("clicked") ^ own))
    ]
    before, after = ([_samples(log).filter(own), raw_state(log.context.block(log.rows), log.context)] for log in logs)
    lists = ["sq_pair", "sq_clicked", "sq_ts", "sq_group"]
    assert before[0].select(lists).equals(after[0].select(lists))
    rows = logs[0].context.block(logs[0].rows).rows.select(own).to_series().to_numpy()
    for name in ("query", "pair"):
        expected, flipped = (_by_row(part[1], name)[rows] for part in (before, after))
        np.testing.assert_allclose(flipped, expected, atol=1e-9, err_msg=name)

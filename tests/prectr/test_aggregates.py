"""Sums by key, running totals as of any day, and S_q, against plain loops."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.preferences import aggregates
from prectr.preferences.aggregates import LEVEL_WIDTH, LevelSums, as_of, matrix, merge_partials, partial_aggregates
from prectr.preferences.behaviours import BEHAVIOUR_SCHEMA, behaviour_states, day_behaviours
from prectr.preferences.grouping import cumulate_by, exclusive, sum_by
from prectr.preferences.tolerance import GRID_SIZE, ClickParameters, log_likelihood

CLICK = ClickParameters(a=0.4, s=0.1, eps=0.01)
DAYS = [date(2026, 3, 1) + timedelta(days=number) for number in range(4)]
CODES = st.lists(st.integers(0, 4), max_size=25)


# Grouping


@given(CODES, st.randoms(use_true_random=False))
def test_sum_by_equals_a_loop(codes: list[int], random) -> None:  # type: ignore[no-untyped-def]
    dense = np.unique(codes, return_inverse=True)[1] if codes else np.zeros(0, np.int64)
    values = np.array([[random.random(), random.random()] for _ in codes]).reshape(-1, 2)
    expected = [sum((v for c, v in zip(dense, values) if c == k), np.zeros(2)) for k in range(len(set(codes)))]
    np.testing.assert_allclose(sum_by(dense, values), np.array(expected).reshape(-1, 2))


@given(CODES, st.randoms(use_true_random=False))
def test_running_sums_equal_a_loop(codes: list[int], random) -> None:  # type: ignore[no-untyped-def]
    ordered = np.array(sorted(codes), dtype=np.int64)
    values = np.array([[random.random()] for _ in codes]).reshape(-1, 1)
    running = [sum(values[j, 0] for j in range(i + 1) if ordered[j] == ordered[i]) for i in range(len(codes))]
    before = [sum(values[j, 0] for j in range(i) if ordered[j] == ordered[i]) for i in range(len(codes))]
    found = cumulate_by(ordered, values)
    np.testing.assert_allclose(found[:, 0], running)
    np.testing.assert_allclose(exclusive(ordered, found)[:, 0], before)


def test_running_sums_do_not_depend_on_the_rest_of_the_block() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((30, 2)) * 10.0 ** rng.integers(-8, 8, (30, 1))
    codes = np.repeat([0, 1, 2], 10)
    together = cumulate_by(codes, values)
    np.testing.assert_array_equal(together[10:20], cumulate_by(codes[10:20], values[10:20]))


# Partial aggregates


def _shown(count: int, seed: int = 0) -> pl.DataFrame:
    """Rows as `partial_aggregates` takes them: a few users, queries and items on four days."""
    rng = np.random.default_rng(seed)
    request = rng.integers(0, 12, count)
    price = rng.random(count) * 3
    return pl.DataFrame(
        {
            "request_id": [f"r{number}" for number in request],
            "user_id": [f"u{number % 5}" for number in request],
            "query": [f"q{number % 4}" for number in request],
            "date": [DAYS[number % 4] for number in request],
            "item_id": [f"i{number}" for number in rng.integers(0, 6, count)],
            "pair": rng.integers(0, 8, count).astype(np.int32),
            "category": [f"c{number}" for number in rng.integers(0, 3, count)],
            "level": rng.integers(0, 4, count).astype(np.int32),
            "exam": rng.random(count),
            "clicked": rng.random(count) < 0.3,
            "log_price": [None if value < 0.4 else value for value in price],
            "user_relevance": rng.random(count),
            "query_relevance": rng.random(count),
        }
    )


def _partials(rows: pl.DataFrame, parts: np.ndarray) -> pl.DataFrame:
    """Rows split into files: of one day each, numbered."""
    made = []
    for number, part in enumerate(np.unique(parts)):
        for day in DAYS:
            file = rows.filter(pl.Series(parts == part) & (pl.col("date") == day))
            if file.height:
                made.append(partial_aggregates(file, number * len(DAYS), CLICK, aggregates.KINDS))
    return pl.concat(made)


def _distinct_columns(kind: str) -> list[int]:
    """Columns that count distinct values inside a file, so that they depend on the split."""
    if kind == "user":
        return [GRID_SIZE]
    return [LEVEL_WIDTH - 4, LEVEL_WIDTH - 3] if kind in ("query", "category", "total") else []


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 3), min_size=40, max_size=40))
def test_any_split_into_files_gives_the_same_totals(seed: int, parts: list[int]) -> None:
    rows = _shown(40, seed)
    whole = merge_partials(_partials(rows, np.zeros(40))).sort("kind", "key", "date")
    split = merge_partials(_partials(rows, np.array(parts))).sort("kind", "key", "date")
    assert whole.select("kind", "key", "date").equals(split.select("kind", "key", "date"))
    for kind in aggregates.KINDS:
        expected, found = (matrix(frame.filter(pl.col("kind") == kind)["sums"]) for frame in (whole, split))
        kept = [column for column in range(expected.shape[1]) if column not in _distinct_columns(kind)]
        np.testing.assert_allclose(found[:, kept], expected[:, kept], atol=1e-9)


def test_order_of_arrival_changes_no_bit() -> None:
    """Blocks come from the shuffle in any order; additions are ordered by the number of the file."""
    partials = _partials(_shown(60), np.arange(60) % 3)
    expected = merge_partials(partials)
    for seed in range(5):
        assert merge_partials(partials.sample(fraction=1, shuffle=True, seed=seed)).equals(expected)


def test_keys_apart_equal_keys_together() -> None:
    """A block of the shuffle holds some keys; which others are in it changes no bit."""
    partials = _partials(_shown(60), np.arange(60) % 3)
    whole = merge_partials(partials)
    for key in ("u1", "q2"):
        assert merge_partials(partials.filter(pl.col("key") == key)).equals(whole.filter(pl.col("key") == key))


def test_totals_equal_a_group_by() -> None:
    rows = _shown(80)
    totals = merge_partials(_partials(rows, np.zeros(80)))
    for key in rows["query"].unique():
        own = rows.filter(pl.col("query") == key)
        last = totals.filter((pl.col("kind") == "query") & (pl.col("key") == key)).sort("date")
        sums = matrix(last["sums"])[-1:]
        named = LevelSums.split(sums)
        for level in range(4):
            of_level = own.filter(pl.col("level") == level)
            assert named.impressions[0, level] == of_level.height
            assert named.examined[0, level] == pytest.approx(of_level["exam"].sum())
            assert named.clicks[0, level] == of_level["clicked"].sum()
        grid = log_likelihood(
            own["clicked"].to_numpy(), own["query_relevance"].to_numpy(), own["exam"].to_numpy(), CLICK
        )
        np.testing.assert_allclose(named.grid[0], grid.sum(axis=0))
        assert named.requests[0] == own["request_id"].n_unique()
        assert named.users[0] == own.select(pl.struct("user_id", "date").n_unique()).item()
        clicked = own.filter("clicked").drop_nulls("log_price")
        assert named.priced_clicks[0] == clicked.height
        assert named.log_price[0] == pytest.approx(clicked["log_price"].sum())


def test_user_item_and_pair_sums() -> None:
    rows = _shown(80)
    totals = merge_partials(_partials(rows, np.zeros(80)))
    for kind, column in (("user", "user_id"), ("item", "item_id"), ("pair", "pair")):
        for (key,), own in rows.group_by(column):
            last = totals.filter((pl.col("kind") == kind) & (pl.col("key") == str(key))).sort("date")
            sums = matrix(last["sums"])[-1]
            first = own["request_id"].n_unique() if kind == "user" else own.height
            np.testing.assert_allclose(sums[-3:], [first, own["exam"].sum(), own["clicked"].sum()])


# As of a day


@given(st.data())
def test_as_of_knows_strictly_earlier_days_only(data) -> None:  # type: ignore[no-untyped-def]
    cells = data.draw(st.dictionaries(st.tuples(st.sampled_from("abc"), st.sampled_from(DAYS)), st.integers(1, 99)))
    wanted = data.draw(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(DAYS)), max_size=10))
    totals = pl.DataFrame(
        [{"key": key, "date": day, "sums": [float(value), -1.0]} for (key, day), value in sorted(cells.items())],
        schema={"key": pl.String, "date": pl.Date, "sums": pl.List(pl.Float64)},
    ).sample(fraction=1, shuffle=True, seed=1)
    rows = pl.DataFrame(wanted, schema={"name": pl.String, "date": pl.Date}, orient="row")
    expected = []
    for key, day in wanted:
        earlier = [(other, value) for (name, other), value in cells.items() if name == key and other < day]
        expected.append([max(earlier)[1], -1.0] if earlier else [0.0, 0.0])
    np.testing.assert_array_equal(as_of(rows, totals, "name", 2), np.array(expected).reshape(-1, 2))


# S_q


def _behaviours(rows: list[tuple[int, int, bool, int]]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "query": f"q{number % 2}",
                "date": DAYS[hour // 24],
                "user_id": f"u{user}",
                "pair": number % 3,
                "clicked": clicked,
                "ts": datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=hour),
                "user_group": user % 4,
            }
            for number, (user, hour, clicked, _) in enumerate(rows)
        ],
        schema=BEHAVIOUR_SCHEMA,
    )


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 95), st.booleans(), st.integers(0, 1)), min_size=1, max_size=40
    ),
    st.integers(1, 3),
)
def test_behaviour_lists_equal_a_loop(rows: list[tuple[int, int, bool, int]], limit: int) -> None:
    frame = _behaviours(rows)
    file = pl.Series([part for *_, part in rows])
    files = [
        frame.filter((file == part) & (pl.col("date") == day)) for part in (0, 1) for day in frame["date"].unique()
    ]
    scanned = pl.concat([day_behaviours(one, limit) for one in files])
    states = behaviour_states(scanned.sample(fraction=1, shuffle=True, seed=2), limit)
    found = {(row["query"], row["date"]): row for row in states.iter_rows(named=True)}
    events = list(frame.iter_rows(named=True))
    assert set(found) == {(event["query"], event["date"]) for event in events}
    for (query, day), state in found.items():
        known = [event for event in events if event["query"] == query and event["date"] <= day]
        best: dict[str, tuple[bool, datetime]] = {}
        for event in known:
            rank = (event["clicked"], event["ts"])
            best[event["user_id"]] = max(best.get(event["user_id"], rank), rank)
        order = sorted(best.items(), key=lambda entry: (-entry[1][0], -entry[1][1].timestamp(), entry[0]))
        assert state["user_id"] == [user for user, _ in order][: limit + 1]
        assert list(zip(state["clicked"], state["ts"])) == [rank for _, rank in order][: limit + 1]
        real = {(e["user_id"], e["pair"], e["clicked"], e["ts"], e["user_group"]) for e in known}
        fields = ("user_id", "pair", "clicked", "ts", "user_group")
        assert set(zip(*(state[name] for name in fields))) <= real


def test_no_behaviours_make_no_states() -> None:
    assert behaviour_states(_behaviours([]), 3).height == 0

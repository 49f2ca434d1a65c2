"""Folds of days: sums, distinct users and S_q before each day, against plain loops."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.core.parquet import write_part
from prectr.data.parts import KeyRange
from prectr.preferences import distinct_users
from prectr.preferences.behaviours import BEHAVIOUR_SCHEMA, LISTED, best_behaviours, states
from prectr.preferences.fold import fold, read_days
from prectr.preferences.sums import USER_NAMES

DAYS = [date(2026, 3, 1) + timedelta(days=number) for number in range(5)]
NAMES = ("impressions", "requests")


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=20),
    st.sampled_from([None, 1.0, 3.0]),
)
def test_fold_equals_a_loop(rows: list[tuple[str, int, int]], half_life: float | None) -> None:
    """A key may have several rows a day, one for each part; the column `requests` does not decay."""
    frame = pl.DataFrame(
        [(key, DAYS[day], value, value) for key, day, value in rows], ("key", "date", *NAMES), orient="row"
    )
    folded = fold(frame.sample(fraction=1, shuffle=True, seed=1), ["key"], NAMES, DAYS, half_life)

    def expected(key: str, day: int) -> list[float]:
        earlier = [(day - other, value) for name, other, value in rows if name == key and other < day]
        return [
            sum(value * (1.0 if half_life is None else 2.0 ** (-age / half_life)) for age, value in earlier),
            sum(value for _, value in earlier),
        ]

    assert folded.before.select("key", "date").n_unique() == folded.before.height
    assert set(folded.before.select("key", "date").iter_rows()) == {(key, DAYS[day]) for key, day, _ in rows}
    for key, day, *sums in folded.before.select("key", "date", *NAMES).iter_rows():
        assert sums == pytest.approx(expected(key, DAYS.index(day)))
    assert folded.after["key"].to_list() == sorted({key for key, *_ in rows})
    for key, *sums in folded.after.iter_rows():
        assert sums == pytest.approx(expected(key, len(DAYS)))


def test_two_key_columns_are_one_key() -> None:
    frame = pl.DataFrame(
        {"query": ["a", "a", "b", "a"], "item": ["x", "y", "x", "x"], "date": [DAYS[0]] * 3 + [DAYS[1]]}
    ).with_columns(impressions=pl.Series([1, 2, 3, 4]))
    folded = fold(frame, ["query", "item"], ("impressions",), DAYS[:2], None)
    assert folded.after.rows() == [("a", "x", 5.0), ("a", "y", 2.0), ("b", "x", 3.0)]
    assert folded.before.filter(pl.col("date") == DAYS[1]).rows() == [("a", "x", DAYS[1], 1.0)]


def test_ranges_cut_nothing_off_and_change_no_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for day in DAYS:
        for part in range(2):
            keys = sorted(rng.choice([f"u{number:02d}" for number in range(30)], 12, replace=False).tolist())
            sums = {name: rng.integers(-(10**12), 10**12, 12) for name in USER_NAMES}
            write_part(tmp_path / f"date={day}" / "user", part, pl.DataFrame({"user_id": keys, **sums}))
    whole = read_days(tmp_path, "user", DAYS, "user_id", KeyRange(None, None, 0))
    assert whole.height == len(DAYS) * 2 * 12
    expected = fold(whole, ["user_id"], USER_NAMES, DAYS, 2.0)
    edges = [None, "u07", "u07x", "u20", None]
    parts = [
        fold(read_days(tmp_path, "user", DAYS, "user_id", KeyRange(low, high, 0)), ["user_id"], USER_NAMES, DAYS, 2.0)
        for low, high in zip(edges[:-1], edges[1:])
    ]
    assert pl.concat([part.after for part in parts]).equals(expected.after)
    order = ["user_id", "date"]
    assert pl.concat([part.before for part in parts]).sort(order).equals(expected.before.sort(order))


# Distinct users


@pytest.fixture
def few_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distinct_users, "KEPT", 64)


def _seen(users: dict[int, list[int]], query: str = "q") -> pl.DataFrame:
    """The hashes that `seen` stores of each day's users of a query."""
    frames = []
    for day, numbers in users.items():
        hashes = pl.Series([f"u{number}" for number in numbers]).hash(seed=0)
        pairs = pl.DataFrame({"key": query, "user_hash": hashes})
        frames.append(distinct_users._smallest(pairs).with_columns(date=pl.lit(DAYS[day])))
    return pl.concat(frames)


def test_few_users_are_counted_exactly() -> None:
    days = pl.concat([_seen({0: [1, 2, 2], 1: [2, 3], 3: [1, 9]}), _seen({1: [5]}, "other")])
    counts = {(query, day): users for query, day, users in distinct_users.counts_before(days).iter_rows()}
    assert counts == {
        ("q", DAYS[0]): 0, ("q", DAYS[1]): 2, ("q", DAYS[3]): 3, ("q", None): 4,
        ("other", DAYS[1]): 0, ("other", None): 1,
    }  # fmt: skip


def test_many_users_are_estimated(few_kept: None) -> None:
    days = _seen({0: list(range(5000)), 1: list(range(2500, 9000)), 2: [1]})
    counts = dict(distinct_users.counts_before(days).select("date", "users").iter_rows())
    assert counts[DAYS[1]] == pytest.approx(5000, rel=4 / 62**0.5)
    assert counts[DAYS[2]] == pytest.approx(9000, rel=4 / 62**0.5)
    assert counts[None] == counts[DAYS[2]], "a user of an earlier day adds nothing"


# S_q


def _behaviours(rows: list[tuple[int, int, bool, int]]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "query": f"q{number % 2}",
                "user_id": f"u{user}",
                "item_id": f"i{number % 3}",
                "clicked": clicked,
                "ts": datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=hour),
                "user_group": user % 4,
            }
            for number, (user, hour, clicked, _) in enumerate(rows)
        ],
        schema=BEHAVIOUR_SCHEMA,
    )


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 95), st.booleans(), st.integers(0, 1)), min_size=1, max_size=40
    ),
    st.integers(1, 3),
)
def test_behaviour_lists_equal_a_loop(rows: list[tuple[int, int, bool, int]], limit: int) -> None:
    frame, part = _behaviours(rows), pl.Series([part for *_, part in rows])
    days = sorted(frame["ts"].dt.date().unique())
    date_of = frame["ts"].dt.date()
    best_of_days = [
        (day, pl.concat([best_behaviours(frame.filter((part == k) & (date_of == day)), limit) for k in (0, 1)]))
        for day in days
    ]
    events = list(frame.iter_rows(named=True))
    for day, lists in states(iter(best_of_days), limit):
        earlier = [event for event in events if day is None or event["ts"].date() < day]
        shown = {event["query"] for event in events if day is None or event["ts"].date() == day}
        assert set(lists["query"]) == {event["query"] for event in earlier} & shown
        for query in lists["query"].unique():
            listed = lists.filter(pl.col("query") == query)
            best: dict[str, tuple[bool, datetime]] = {}
            for event in (event for event in earlier if event["query"] == query):
                rank = (event["clicked"], event["ts"])
                best[event["user_id"]] = max(best.get(event["user_id"], rank), rank)
            order = sorted(best.items(), key=lambda entry: (-entry[1][0], -entry[1][1].timestamp(), entry[0]))
            assert listed["user_id"].to_list() == [user for user, _ in order][: limit + 1]
            assert list(zip(listed["clicked"], listed["ts"])) == [rank for _, rank in order][: limit + 1]
            real = {tuple(event[name] for name in LISTED) for event in earlier}
            assert set(listed.select(LISTED).iter_rows()) <= real

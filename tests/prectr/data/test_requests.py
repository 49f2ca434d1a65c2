"""Requests: which rows are one, their common time, ids that start anew, and rows that repeat an item."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prectr.data import requests
from prectr.data.requests import Settled, settle

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SCHEMA: dict[str, Any] = {
    "request_id": pl.String,
    "user_id": pl.String,
    "query": pl.String,
    "ts": pl.Datetime("us", "UTC"),
    "item_id": pl.String,
    "position": pl.Int32,
    "clicked": pl.Boolean,
}


def _row(request: str, minutes: float, item: str, **more: Any) -> dict[str, Any]:
    row = {"request_id": request, "user_id": "u", "query": "q", "item_id": item, "position": 1, "clicked": False}
    return {**row, "ts": NOON + timedelta(minutes=minutes), **more}


def _frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    price = {"price": pl.Float64} if any("price" in row for row in rows) else {}
    return pl.DataFrame(rows, schema={**SCHEMA, **price})


def _settle(*rows: dict[str, Any], minutes: float = 30) -> Settled:
    return settle({"impressions": _frame(list(rows))}, minutes)


def _shown(settled: Settled, *names: str) -> list[tuple[Any, ...]]:
    return settled.tables["impressions"].select(names or ("request_id", "ts", "item_id")).rows()


def _after(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def test_all_rows_of_a_request_have_its_earliest_time() -> None:
    settled = _settle(_row("a", 29, "x"), _row("a", 0, "y"), _row("a", 30, "z"), _row("b", 5, "x"))
    assert _shown(settled) == [("a", NOON, "x"), ("a", NOON, "y"), ("a", NOON, "z"), ("b", _after(5), "x")]
    assert not settled.renamed and not settled.merged["impressions"]


def test_a_request_over_midnight_is_of_the_day_of_its_earliest_row() -> None:
    settled = _settle(_row("a", 12 * 60 - 1, "x"), _row("a", 12 * 60 + 1, "y"))
    assert settled.tables["impressions"]["ts"].unique().to_list() == [_after(12 * 60 - 1)]


def test_ids_that_start_anew_every_day_stay_as_they_are() -> None:
    settled = _settle(*(_row("1", day * 24 * 60, item) for day in range(3) for item in "xy"))
    assert [row[0] for row in _shown(settled)] == ["1"] * 6 and not settled.renamed
    assert settled.tables["impressions"]["ts"].n_unique() == 3 and not settled.merged["impressions"]


@pytest.mark.parametrize(("minutes", "requests_found"), [(30, 1), (30.001, 2), (31, 2), (12 * 60 - 1, 2)])
def test_ids_that_start_anew_twice_a_day_get_a_number(minutes: float, requests_found: int) -> None:
    settled = _settle(_row("1", minutes, "x", clicked=True), _row("1", 0, "x"))
    if requests_found == 1:
        assert _shown(settled, "request_id", "ts", "clicked") == [("1", NOON, True)]
    else:
        assert _shown(settled, "request_id", "ts", "clicked") == [("1", NOON, False), ("1~2", _after(minutes), True)]
    assert settled.renamed == requests_found - 1


def test_a_long_row_of_rows_is_cut_from_its_earliest_one() -> None:
    settled = _settle(*(_row("1", minutes, f"i{minutes}") for minutes in (0, 20, 40, 60, 80)), minutes=30)
    assert [row[:2] for row in _shown(settled)] == [
        ("1", NOON), ("1", NOON), ("1~2", _after(40)), ("1~2", _after(40)), ("1~3", _after(80)),
    ]  # fmt: skip
    assert settled.renamed == 2


def test_another_user_or_query_is_another_request() -> None:
    settled = _settle(_row("1", 0, "x", user_id="v"), _row("1", 0, "x"), _row("1", 0, "x", query="r"))
    assert _shown(settled, "request_id", "user_id", "query") == [("1", "u", "q"), ("1~2", "u", "r"), ("1~3", "v", "q")]
    assert settled.renamed == 2 and not settled.merged["impressions"]


def test_candidates_share_the_requests_of_impressions() -> None:
    shown = _frame([_row("1", 3, "x"), _row("2", 3, "x")])
    candidates = _frame([_row("1", 0, "y"), _row("1", 40, "z"), _row("3", 1, "z")]).drop("position", "clicked")
    settled = settle({"impressions": shown, "candidates": candidates}, 30)
    assert _shown(settled, "request_id", "ts") == [("1", NOON), ("2", _after(3))]
    assert settled.tables["candidates"].select("request_id", "ts", "item_id").rows() == [
        ("1", NOON, "y"), ("3", _after(1), "z"), ("1~2", _after(40), "z"),
    ]  # fmt: skip


def test_equal_rows_count_once() -> None:
    settled = _settle(*[_row("1", 0, "x", clicked=True)] * 3)
    assert settled.merged["impressions"] == {requests.EQUAL: 2}
    assert _shown(settled, "item_id", "clicked") == [("x", True)]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_a_click_that_is_a_second_row_is_kept(order: list[int]) -> None:
    rows = [_row("1", 0, "x"), _row("1", 1, "x", clicked=True), _row("1", 2, "x")]
    settled = _settle(*(rows[number] for number in order))
    assert settled.merged["impressions"] == {requests.CLICKS_DIFFER: 2}
    assert _shown(settled, "ts", "clicked") == [(NOON, True)]


def test_other_values_are_those_of_the_earliest_row_that_has_some() -> None:
    late = _row("1", 1, "x", position=2, price=7.0, clicked=True)
    settled = _settle(late, _row("1", 0, "x", position=5, price=None), _row("1", 0, "y", price=1.0))
    assert settled.merged["impressions"] == {requests.OTHERS_DIFFER: 1}
    assert _shown(settled, "item_id", "position", "price", "clicked") == [("y", 1, 1.0, False), ("x", 5, 7.0, True)]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from("12"), st.sampled_from("uv"), st.integers(0, 100), st.sampled_from("xyz"), st.booleans(),
        st.integers(1, 2),
    ),
    min_size=1, max_size=25,
)  # fmt: skip


@given(EVENTS, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing_and_no_click_is_lost(
    events: list[tuple[str, str, int, str, bool, int]], shuffle: random.Random
) -> None:
    rows = [_row(request, minutes, item, user_id=user, clicked=clicked, position=position)
            for request, user, minutes, item, clicked, position in events]  # fmt: skip
    settled = _settle(*rows)
    shuffle.shuffle(rows)
    again = _settle(*rows)
    assert settled.tables["impressions"].equals(again.tables["impressions"])
    assert (settled.merged, settled.renamed) == (again.merged, again.renamed)
    shown = settled.tables["impressions"]
    assert shown.height + settled.merged["impressions"].total() == len(rows)
    assert not shown.select(pl.struct("request_id", "item_id").is_duplicated().any()).item()
    # The rule, written down once more, row by row: requests are cut greedily from their earliest row on.
    clicks, start = set(), {}
    for row in sorted(rows, key=lambda row: row["ts"]):
        key = (row["request_id"], row["user_id"])
        if key not in start or row["ts"] - start[key] > timedelta(minutes=30):
            start[key] = row["ts"]
        if row["clicked"]:
            clicks.add((*key, start[key], row["item_id"]))
    found = shown.filter("clicked").select(pl.col("request_id").str.split("~").list.first(), "user_id", "ts", "item_id")
    assert set(found.rows()) == clicks and found.height == len(clicks)


def test_a_numbered_name_is_never_that_of_another_request() -> None:
    settled = _settle(
        _row("1", 0, "x"), _row("1", 40, "x"), _row("1~2", 5, "x", user_id="v"), _row("1", 80, "x"), _row("1~4", 9, "x")
    )  # fmt: skip
    assert _shown(settled, "request_id", "user_id") == [
        ("1", "u"), ("1~2", "v"), ("1~4", "u"), ("1~3", "u"), ("1~5", "u")
    ]  # fmt: skip
    assert settled.renamed == 2

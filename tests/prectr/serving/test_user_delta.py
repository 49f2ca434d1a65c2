"""What events add to a user: equal to what mining would have added, never counted twice, gone once it is published."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prectr.contracts.protocol import Event, ShownItem
from prectr.features.inputs import INPUT_NAMES, ranker_inputs
from prectr.features.load import row_arrays
from prectr.preferences.sums import USER_NAMES
from prectr.preferences.tolerance import GRID_SIZE, LATTICE, ClickParameters, LogLikelihoodTable, log_likelihood
from prectr.ranking.features import OnlineFeatures
from prectr.serving.delta_stores import LmdbDeltas, RedisDeltas, UserDeltas
from prectr.serving.redis_client import RedisGuard
from prectr.serving.user_delta import (
    KEPT_CLICKS,
    KEPT_LISTS,
    EventLimits,
    EventReader,
    Outcome,
    SeenItem,
    SeenList,
    UserRecord,
    add_list,
    merged,
)
from tests.prectr.ranking.test_online_equals_offline import Both
from tests.redis_server import RedisServer

CLICK, EXPONENT = ClickParameters(a=0.4, s=0.15, eps=0.02), 0.8
TABLE = LogLikelihoodTable(CLICK, EXPONENT)
DAY = 86_400.0


def _item(name: str, position: int, clicked: bool, steps: int = 120) -> SeenItem:
    return SeenItem(name, position, clicked, steps, "nokia", "phones", 0.5, [1, 2, 3, 4, 5])


def _seen(request: str, *items: SeenItem, ts: float = 10 * DAY) -> SeenList:
    return SeenList(request, ts, list(items))


class Kept:
    """What is kept of a user, in memory."""

    def __init__(self) -> None:
        self.record, self._rows = UserRecord(), dict[str, Any]()

    def add(self, seen: SeenList, identity: str = "s", now: float = 10 * DAY, **options: Any) -> Outcome:
        before = replace(self.record, rows=copy.deepcopy(self._rows.get(seen.request_id)))
        after, outcome = add_list(copy.deepcopy(before), seen, TABLE, identity, now=now, **options)
        if outcome == "new":
            self.record, self._rows[seen.request_id] = after, after.rows
        return outcome

    def merged(self, as_of: float = 0.0, **options: Any) -> dict[str, Any] | None:
        return merged(None, self.record.delta, "s", as_of, **options)


def test_a_list_adds_the_log_likelihood_of_its_rows() -> None:
    kept = Kept()
    assert kept.add(_seen("r", _item("i", 1, True, 150), _item("j", 3, False, 40))) == "new"
    user = kept.merged(10 * DAY)
    assert user is not None
    expected = log_likelihood(
        np.array([True, False]), np.array([150, 40]) / LATTICE, np.array([1.0, 3.0]) ** -EXPONENT, CLICK
    ).sum(0)
    sums = dict(zip(USER_NAMES, user["sums"]))
    np.testing.assert_allclose(user["sums"][:GRID_SIZE], expected, atol=1e-5)
    assert (sums["requests"], sums["clicks"]) == (1, 1)
    assert sums["examined"] == pytest.approx(1 + 3**-EXPONENT, abs=1e-5)
    assert user["brands"]["nokia"] == pytest.approx([1 + 3**-EXPONENT, 1], abs=1e-5)
    assert user["price"] == [0.5, 1.0] and user["clicks"] == [[1, 2, 3, 4, 5, 10 * DAY]]


@given(st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=3), max_size=5))
def test_a_list_in_parts_adds_as_much_as_at_once(parts: list[list[tuple[str, bool]]]) -> None:
    """A list that is sent again, with other items and later clicks, adds as much as the whole list sent once."""
    positions = {"a": 1, "b": 2, "c": 5}
    in_parts, at_once = Kept(), Kept()
    for part in parts:
        in_parts.add(_seen("r", *(_item(name, positions[name], clicked) for name, clicked in part)))
    clicked = {name for part in parts for name, clicked in part if clicked}
    names = dict.fromkeys(name for part in parts for name, _ in part)
    if parts:
        at_once.add(_seen("r", *(_item(name, positions[name], name in clicked) for name in names)))
    actual, expected = in_parts.merged(), at_once.merged()
    assert (actual is None) == (expected is None)
    if actual is not None and expected is not None:
        np.testing.assert_allclose(actual["sums"], expected["sums"], atol=1e-9)
        assert actual["brands"]["nokia"] == pytest.approx(expected["brands"]["nokia"])
        assert len(actual["clicks"]) == len(clicked)


def test_the_same_list_again_adds_nothing() -> None:
    seen, kept = _seen("r", _item("i", 1, True), _item("j", 2, False)), Kept()
    assert kept.add(seen) == "new"
    before = kept.record
    assert kept.add(seen) == "known" and kept.record is before


def test_days_that_the_state_holds_do_not_count_twice() -> None:
    kept = Kept()
    kept.add(_seen("r", _item("i", 1, True), ts=10 * DAY + 5))
    kept.add(_seen("q", _item("j", 1, True), ts=11 * DAY + 5))
    base = {"sums": [1.0] * len(USER_NAMES), "clicks": [[9, 9, 9, 9, 9, 1.0]], "queries": {"q": [1.0]}}
    both, later, none = (merged(base, kept.record.delta, "s", as_of * DAY) for as_of in (10, 11, 12))
    assert both is not None and later is not None and none is not None
    assert [user["sums"][USER_NAMES.index("requests")] for user in (both, later, none)] == [3, 2, 1]
    assert [len(user["clicks"]) for user in (both, later, none)] == [3, 2, 1]
    assert later["queries"] == base["queries"] and base["clicks"] == [[9, 9, 9, 9, 9, 1.0]]


def test_a_delta_of_another_state_is_not_read() -> None:
    kept, seen = Kept(), _seen("r", _item("i", 1, True))
    kept.add(seen, identity="old")
    assert merged({"sums": [0.0]}, kept.record.delta, "new", 0.0) == {"sums": [0.0]}
    assert merged(None, kept.record.delta, "new", 0.0) is None
    assert kept.add(seen, identity="new") == "new"
    delta = kept.record.delta
    assert delta is not None and delta["identity"] == "new" and len(kept.record.lists) == 1
    assert delta["days"][10]["sums"][USER_NAMES.index("requests")] == 1


def test_a_delta_stays_small() -> None:
    kept = Kept()
    for number in range(200):
        kept.add(_seen(f"r{number}", _item("i", 1, True), ts=number * DAY / 4))
    delta = kept.record.delta
    assert delta is not None and len(delta["days"]) == 8 and len(delta["clicks"]) == KEPT_CLICKS


LIMITS = EventLimits(window_days=8, ahead_hours=1, unproved_per_minute=3)


def test_future_days_never_hide_real_ones() -> None:
    """Days that lie ahead, from a time without limits, neither count nor displace the days that do."""
    kept, now = Kept(), 20 * DAY
    for number in range(60):
        kept.add(_seen(f"f{number}", _item("i", 1, True), ts=(30 + number) * DAY))
    assert kept.merged() is not None and kept.merged(latest=LIMITS.latest(now)) is None
    kept.add(_seen("real", _item("i", 1, True), ts=now), now=now, limits=LIMITS)
    delta, user = kept.record.delta, kept.merged(latest=LIMITS.latest(now))
    assert delta is not None and list(delta["days"]) == [20] and len(delta["clicks"]) == 1
    assert user is not None and user["sums"][USER_NAMES.index("requests")] == 1


def test_days_before_the_window_are_dropped_and_those_in_it_are_kept() -> None:
    kept = Kept()
    for number in range(12):
        kept.add(_seen(f"r{number}", _item("i", 1, False), ts=number * DAY), now=number * DAY, limits=LIMITS)
    delta = kept.record.delta
    assert delta is not None and list(delta["days"]) == list(range(3, 12)), "8 days before now, and today"
    assert len(kept.record.lists) == 9


def test_a_list_is_known_for_as_long_as_the_window_and_no_user_has_more_than_a_thousand() -> None:
    kept = Kept()
    for number in range(KEPT_LISTS):
        assert kept.add(_seen(f"r{number}", _item("i", 1, False)), now=10 * DAY + number, limits=LIMITS) == "new"
    full = kept.record
    assert kept.add(_seen("one more", _item("i", 1, False)), now=11 * DAY, limits=LIMITS) == "too_many_lists"
    for number in (0, 500, KEPT_LISTS - 1):
        assert kept.add(_seen(f"r{number}", _item("i", 1, False)), now=11 * DAY, limits=LIMITS) == "known"
    assert kept.record is full
    assert kept.add(_seen("r0", _item("i", 1, True)), now=11 * DAY, limits=LIMITS) == "new", "a later click"
    assert kept.add(_seen("one more", _item("i", 1, False)), now=18.001 * DAY, limits=LIMITS) == "new"


def test_lists_without_a_token_are_limited_by_the_minute() -> None:
    kept = Kept()

    def add(name: str, after: float, proved: bool = False) -> Outcome:
        return kept.add(_seen(name, _item("i", 1, False)), now=10 * DAY + after, limits=LIMITS, proved=proved)

    assert [add(f"r{number}", number) for number in range(5)] == ["new"] * 3 + ["too_fast"] * 2
    assert add("r0", 6) == "known" and add("proved", 7, proved=True) == "new"
    assert add("r3", 59) == "too_fast" and add("r3", 60.5) == "new"


@pytest.fixture(params=["lmdb", "redis"])
def deltas(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UserDeltas]:
    """A store of deltas, with a real server where it is Redis."""
    if request.param == "lmdb":
        store = LmdbDeltas(tmp_path / "events")
        yield store
        store.close()
        return
    server = RedisServer(tmp_path)
    server.start()
    try:
        yield RedisDeltas(RedisGuard(server.url, 5.0, 0.0))
    finally:
        server.stop()


def test_a_store_keeps_a_users_lists_apart_and_forgets_those_before_the_window(deltas: UserDeltas) -> None:
    def add(user: str, name: str, now: float, clicked: bool = False) -> Outcome:
        seen = _seen(name, _item("i", 1, clicked), ts=now)
        return deltas.change(
            user, name, partial(add_list, seen=seen, table=TABLE, identity="s", now=now, limits=LIMITS)
        )

    assert [add("u", "r", 10 * DAY), add("u", "r", 10 * DAY), add("v", "r", 10 * DAY)] == ["new", "known", "new"]
    assert add("u", "r", 10 * DAY + 1, clicked=True) == "new"
    delta = deltas.read("u")
    assert delta is not None and delta["days"][10]["sums"][USER_NAMES.index("clicks")] == 1
    assert add("u", "later", 19 * DAY) == "new"
    rows = [deltas.change("u", name, lambda record: (record, record.rows)) for name in ("r", "later")]
    assert rows[0] is None and rows[1] is not None, "the rows of a list that left the window are deleted"
    assert deltas.read("nobody") is None


def test_deltas_lie_on_disk(tmp_path: Path) -> None:
    add = partial(add_list, seen=_seen("r", _item("i", 1, True)), table=TABLE, identity="s", now=0.0)
    deltas = LmdbDeltas(tmp_path)
    deltas.change("u", "r", add)
    deltas.close()
    deltas = LmdbDeltas(tmp_path)
    delta = deltas.read("u")
    assert delta is not None and merged(None, delta, "s", 0.0) is not None
    assert deltas.change("u", "r", add) == "known"
    deltas.close()


@pytest.mark.parametrize(("seed", "half_life"), [(0, None), (1, 1.5), (2, 1.5), (3, None), (4, 1.5)])
def test_after_events_online_equals_offline(
    laboratory: SimpleNamespace, tmp_path: Path, seed: int, half_life: float | None
) -> None:
    """Every request of the last day, with the day's earlier lists told as events and nothing else known of the day."""
    both = Both(laboratory, seed, tmp_path, half_life=half_life)
    deltas = LmdbDeltas(tmp_path / "events")
    store, bundle = both.features._store, both.features._bundle

    def users(user_id: str) -> object:
        return merged(store.get("user", user_id), deltas.read(user_id), "s", _morning(both.samples))

    features = OnlineFeatures(bundle, both.encoder, store, users)  # type: ignore[arg-type]
    reader = EventReader(bundle, features)
    compared = 0
    for _, moment in both.samples.sort("ts").group_by("user_id", "ts", maintain_order=True):
        requests = [rows.sort("position") for rows in moment.partition_by("request_id")]
        for request in requests:
            row = request.row(0, named=True)
            candidates = [
                item if price is None else {"item_id": item, "price": price}
                for item, price in request.select("item_id", "price").iter_rows()
            ]
            actual = features.request(row["user_id"], row["query"], candidates, row["ts"].timestamp())
            expected = ranker_inputs(row_arrays(request, both.spec, both.pairs), both.pairs)
            arrays = ranker_inputs(actual.rows, actual.pairs)
            for name in INPUT_NAMES:
                np.testing.assert_allclose(arrays[name], expected[name], rtol=1e-4, atol=1e-4, err_msg=name)
            compared += actual.earlier_requests > 0
        for request in requests:
            event = logged_event(request)
            add = partial(add_list, seen=reader.read(event, 0.0), table=reader.table, identity="s", now=0.0)
            deltas.change(event.user_id, event.request_id, add)
    assert compared
    deltas.close()


def _morning(samples: pl.DataFrame) -> float:
    return (samples["date"][0] - pl.Series([0]).cast(pl.Date)[0]).days * DAY


def logged_event(request: pl.DataFrame) -> Event:
    """The event of a logged request, given its sample rows."""
    row = request.row(0, named=True)
    shown = [
        ShownItem(item_id=item, position=position, clicked=clicked, price=price)
        for item, position, clicked, price in request.select("item_id", "position", "clicked", "price").iter_rows()
    ]
    return Event(
        request_id=row["request_id"],
        user_id=row["user_id"],
        query=row["query"],
        shown=shown,
        ts=row["ts"].timestamp(),
    )


def test_an_item_that_nobody_knows_says_nothing(laboratory: SimpleNamespace, tmp_path: Path) -> None:
    both = Both(laboratory, 1, tmp_path)
    reader = EventReader(both.features._bundle, both.features)
    shown = [ShownItem(item_id="i0", position=1), ShownItem(item_id="unheard", position=2, clicked=True)]
    seen = reader.read(Event(request_id="r", user_id="u0", query="phone", shown=shown), 5.0)
    assert [item.item_id for item in seen.items] == ["i0"] and seen.ts == 5.0
    only = Event(request_id="r", user_id="u0", query="phone", shown=shown[1:])
    assert reader.read(only, 5.0).items == []

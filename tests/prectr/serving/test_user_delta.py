"""What events add to a user: equal to what mining would have added, never counted twice, gone once it is published."""

from pathlib import Path
from types import SimpleNamespace

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
from prectr.serving.delta_stores import LmdbDeltas
from prectr.serving.user_delta import KEPT_REQUESTS, EventReader, SeenItem, SeenList, add_list, merged
from tests.prectr.ranking.test_online_equals_offline import Both

CLICK, EXPONENT = ClickParameters(a=0.4, s=0.15, eps=0.02), 0.8
TABLE = LogLikelihoodTable(CLICK, EXPONENT)
DAY = 86_400.0


def _item(name: str, position: int, clicked: bool, steps: int = 120) -> SeenItem:
    return SeenItem(name, position, clicked, steps, "nokia", "phones", 0.5, [1, 2, 3, 4, 5])


def _seen(request: str, *items: SeenItem, ts: float = 10 * DAY) -> SeenList:
    return SeenList(request, ts, list(items))


def test_a_list_adds_the_log_likelihood_of_its_rows() -> None:
    delta, new = add_list(None, _seen("r", _item("i", 1, True, 150), _item("j", 3, False, 40)), TABLE, "state")
    user = merged(None, delta, "state", 10 * DAY)
    assert new and user is not None
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
    delta = None
    for part in parts:
        delta, _ = add_list(delta, _seen("r", *(_item(name, positions[name], clicked) for name, clicked in part)),
                            TABLE, "s")  # fmt: skip
    clicked = {name for part in parts for name, clicked in part if clicked}
    names = dict.fromkeys(name for part in parts for name, _ in part)
    whole = [_item(name, positions[name], name in clicked) for name in names]
    once = add_list(None, _seen("r", *whole), TABLE, "s")[0] if parts else None
    actual, expected = (merged(None, delta, "s", 0.0) for delta in (delta, once))
    assert (actual is None) == (expected is None)
    if actual is not None and expected is not None:
        np.testing.assert_allclose(actual["sums"], expected["sums"], atol=1e-9)
        assert actual["brands"]["nokia"] == pytest.approx(expected["brands"]["nokia"])
        assert len(actual["clicks"]) == len(clicked)


def test_the_same_list_again_says_nothing_new() -> None:
    seen = _seen("r", _item("i", 1, True), _item("j", 2, False))
    first, _ = add_list(None, seen, TABLE, "s")
    copy = merged(None, first, "s", 0.0)
    again, new = add_list(first, seen, TABLE, "s")
    assert not new and merged(None, again, "s", 0.0) == copy


def test_days_that_the_state_holds_do_not_count_twice() -> None:
    delta, _ = add_list(None, _seen("r", _item("i", 1, True), ts=10 * DAY + 5), TABLE, "s")
    delta, _ = add_list(delta, _seen("q", _item("j", 1, True), ts=11 * DAY + 5), TABLE, "s")
    base = {"sums": [1.0] * len(USER_NAMES), "clicks": [[9, 9, 9, 9, 9, 1.0]], "queries": {"q": [1.0]}}
    both, later, none = (merged(base, delta, "s", as_of * DAY) for as_of in (10, 11, 12))
    assert both is not None and later is not None and none is not None
    assert [user["sums"][USER_NAMES.index("requests")] for user in (both, later, none)] == [3, 2, 1]
    assert [len(user["clicks"]) for user in (both, later, none)] == [3, 2, 1]
    assert later["queries"] == base["queries"] and base["clicks"] == [[9, 9, 9, 9, 9, 1.0]]


def test_a_delta_of_another_state_is_not_read() -> None:
    delta, _ = add_list(None, _seen("r", _item("i", 1, True)), TABLE, "old")
    assert merged({"sums": [0.0]}, delta, "new", 0.0) == {"sums": [0.0]}
    assert merged(None, delta, "new", 0.0) is None
    fresh, new = add_list(delta, _seen("r", _item("i", 1, True)), TABLE, "new")
    assert new and fresh["identity"] == "new"


def test_a_delta_stays_small() -> None:
    delta = None
    for number in range(200):
        delta, _ = add_list(delta, _seen(f"r{number}", _item("i", 1, True), ts=number * DAY / 4), TABLE, "s")
    assert delta is not None
    assert len(delta["shown"]) == KEPT_REQUESTS and len(delta["days"]) == 8 and len(delta["clicks"]) == 50


def test_deltas_lie_on_disk(tmp_path: Path) -> None:
    deltas = LmdbDeltas(tmp_path)
    deltas.change("u", lambda delta: add_list(delta, _seen("r", _item("i", 1, True)), TABLE, "s"))
    deltas.close()
    deltas = LmdbDeltas(tmp_path)
    delta = deltas.read("u")
    assert delta is not None and merged(None, delta, "s", 0.0) is not None
    assert deltas.read("nobody") is None
    assert deltas.change("u", lambda delta: add_list(delta, _seen("r", _item("i", 1, True)), TABLE, "s"))[1] is False
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
            deltas.change(
                event.user_id,
                lambda delta, event=event: add_list(delta, reader.read(event, 0.0), reader.table, "s"),  # type: ignore[misc]
            )
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

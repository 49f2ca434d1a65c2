"""Messages of the scoring service: what is refused, with the place of the field, and how lists are merged."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from prectr.contracts.protocol import Event, InvalidField, ScoreRequest, ShownItem, require_ids
from prectr.contracts.schema import NULL_IDS, is_null_id

BLANKS = ("", " ", "\t\n", "\u3000", "\u200b", " \ufeff\u00ad ")
REQUEST: dict[str, Any] = {"user_id": "u", "query": "q", "candidates": ["a", {"item_id": "b"}]}
EVENT: dict[str, Any] = {"request_id": "r", "user_id": "u", "query": "q", "shown": [{"item_id": "a", "position": 1}]}
REQUEST_IDS = [
    ("user_id", lambda text: {"user_id": text}),
    ("context.request_id", lambda text: {"context": {"request_id": text}}),
    ("candidates.0", lambda text: {"candidates": [text]}),
    ("candidates.1.item_id", lambda text: {"candidates": ["a", {"item_id": text}]}),
]
EVENT_IDS = [
    ("request_id", lambda text: {"request_id": text}),
    ("user_id", lambda text: {"user_id": text}),
    ("shown.0.item_id", lambda text: {"shown": [{"item_id": text, "position": 1}]}),
]
CASES = [(ScoreRequest, REQUEST, *case) for case in REQUEST_IDS] + [(Event, EVENT, *case) for case in EVENT_IDS]


@pytest.mark.parametrize("text", BLANKS)
def test_a_blank_id_or_query_is_refused_at_its_place(text: str) -> None:
    queries = [(ScoreRequest, REQUEST, "query", lambda text: {"query": text})]
    queries += [(Event, EVENT, "query", lambda text: {"query": text})]
    for kind, body, place, change in [*CASES, *queries]:
        with pytest.raises(ValidationError, match=r"is blank|at least 1 character") as error:
            kind.model_validate(body | change(text))
        assert any(set(place.split(".")) <= set(map(str, entry["loc"])) for entry in error.value.errors())


@pytest.mark.parametrize("text", ["nan", "NaN", " null ", "None", r"\N", "<NA>", "undefined"])
def test_a_word_for_a_missing_id_is_refused_at_its_place(text: str) -> None:
    for kind, body, place, change in CASES:
        message = kind.model_validate(body | change(text))
        with pytest.raises(InvalidField, match="stands for a missing id") as error:
            require_ids(message, NULL_IDS)
        assert ".".join(map(str, error.value.path)) == place
        require_ids(message, ())


def test_as_a_query_or_title_such_a_word_is_text() -> None:
    item = {"item_id": "a", "title": "null"}
    require_ids(ScoreRequest.model_validate({"user_id": "u", "query": "nan", "candidates": [item]}), NULL_IDS)
    shown = [item | {"position": 1}]
    require_ids(Event.model_validate(EVENT | {"query": "none", "shown": shown}), NULL_IDS)


@pytest.mark.parametrize("ts", [1772447205.582, 1772447205582, "2026-03-02T10:26:45.582Z", "1772447205.582", None])
def test_times_are_seconds_whatever_their_spelling(ts: Any) -> None:
    seconds = None if ts is None else 1772447205.582
    assert ScoreRequest.model_validate(REQUEST | {"context": {"ts": ts}}).context.ts == seconds
    message = Event.model_validate_json(json.dumps(EVENT | {"ts": ts}))
    assert message.ts == seconds and Event.model_validate_json(message.model_dump_json()) == message


@pytest.mark.parametrize(
    ("ts", "reason"),
    [
        ("2026-03-02T10:26:45", "has no zone"),
        ("03-02-2026 10:26:45Z", "may begin with the day or the month"),
        (20260302, "spells a date"),
        (-1, "greater than or equal to 0"),
        ("2100-01-01T00:00:00Z", "less than or equal to 4000000000"),
        (True, "not bool"),
        ({}, "not dict"),
    ],
)
def test_a_time_that_may_be_misread_is_refused(ts: Any, reason: str) -> None:
    for kind, body in ((ScoreRequest, REQUEST | {"context": {"ts": ts}}), (Event, EVENT | {"ts": ts})):
        with pytest.raises(ValidationError, match=reason):
            kind.model_validate(body)


def test_the_schema_shows_that_a_time_is_a_number_or_text() -> None:
    kinds = Event.model_json_schema()["properties"]["ts"]["anyOf"]
    assert [kind["type"] for kind in kinds] == ["number", "string", "null"]


def _shown(*rows: dict[str, Any]) -> list[ShownItem]:
    return Event.model_validate(EVENT | {"shown": rows}).shown


@given(st.permutations([{"clicked": True}, {"purchased": True}, {"purchased": False, "price": 5.0}, {"title": "t"}]))
def test_an_item_that_is_twice_in_a_list_is_one_in_whatever_order(told: list[dict[str, Any]]) -> None:
    rows = [{"item_id": "a", "position": place} | fields for place, fields in enumerate(told, start=1)]
    other = {"item_id": "b", "position": 9}
    first = ShownItem(item_id="a", position=1, clicked=True, purchased=True, price=5.0, title="t")
    assert _shown(rows[0], other, *rows[1:]) == [first, ShownItem.model_validate(other)]


def test_the_first_price_stays_and_what_nobody_told_stays_unknown() -> None:
    rows = [{"item_id": "a", "position": 2, "price": price} for price in (None, 5.0, 6.0)]
    assert _shown(*rows) == [ShownItem(item_id="a", position=2, price=5.0)]


def test_a_position_of_two_items_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"position 2 holds two items: 'b' and 'c'"):
        _shown(*({"item_id": item, "position": place} for item, place in (("a", 1), ("b", 2), ("c", 2))))


def test_the_words_are_a_setting_but_blanks_are_always_null() -> None:
    assert is_null_id("0", ("0",)) and is_null_id(" \u200b", ()) and not is_null_id("nan", ("0",))
    assert not any(is_null_id(text) for text in ("0", "n", "nano", "nullsoft", "-"))

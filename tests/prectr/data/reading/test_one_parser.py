"""The parser of columns and the parser of single times read the same texts and numbers alike."""

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.core.times import parse_time
from prectr.data.reading.times import parse_times

TEXTS = st.from_regex(
    r"(20[0-9]{2}|1970|0?000)[-/]?[0-9]{1,2}[-/]?[0-9]{1,2}([T ][0-9]{1,2}:?[0-9]{2}(:?[0-9]{1,2}([.,][0-9]{1,10})?)?)?"
    r"( ?(Z|UTC|[+-][0-9]{2}(:?[0-9]{2})?))?",
    fullmatch=True,
)
NUMBERS = st.one_of(st.integers(0, 10**19), st.integers(19_000_101, 21_001_231), st.integers(10**13, 10**18))


def single(value: str | int) -> int | None:
    try:
        return round(parse_time(value) * 1_000_000)
    except ValueError:
        return None


def microseconds(values: list[str] | list[int]) -> list[int | None]:
    return parse_times(pl.Series(values)).times.dt.epoch("us").to_list()


def agree(one: int | None, other: int | None) -> bool:
    """Equal but for the rounding of seconds as a float."""
    if one is None or other is None:
        return one is other
    return abs(one - other) <= max(1, abs(one) // 2**51)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=20))
def test_texts_are_read_alike_whatever_stands_first(texts: list[str]) -> None:
    for text, found in zip(texts, microseconds(texts), strict=True):
        assert agree(single(text), found), text
    assert microseconds(texts[::-1]) == microseconds(texts)[::-1]


@settings(max_examples=300, derandomize=True, deadline=None)
@given(NUMBERS)
def test_numbers_are_read_alike_also_as_texts(number: int) -> None:
    on_calendar = single(number)
    for found in (*microseconds([str(number)]), *(microseconds([number]) if number < 2**63 else ())):
        # A column holds times of the years 1 to 9999 only.
        assert found is None or agree(on_calendar, found)
        assert found is not None or on_calendar is None or on_calendar > 253_402_300_800 * 10**6

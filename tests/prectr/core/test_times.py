"""Times of clients: all spellings of an instant agree, and what may be misread is refused with the reason."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prectr.core.times import ISO_8601, parse_time

INSTANTS = st.datetimes(datetime(1971, 1, 1), datetime(2095, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))
OFFSETS = st.integers(-12 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def _close(actual: float, moment: datetime) -> bool:
    return abs(actual - (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) < 1e-6


@given(INSTANTS, OFFSETS, st.data())
def test_every_spelling_of_an_instant_is_that_instant(moment: datetime, offset: timezone, data: st.DataObject) -> None:
    def pick(*choices: str) -> str:
        return data.draw(st.sampled_from(choices))

    digits = data.draw(st.integers(6, 9))
    fraction = pick(".", ",") + f"{moment.microsecond:06d}".ljust(digits, "0")
    if data.draw(st.booleans()):
        local, zone = moment, pick("Z", "z", " UTC", "UTC", "+00", "+0000", "-00:00", " GMT")
    else:
        local = moment.astimezone(offset)
        zone = pick("", " ") + f"{local:%z}"
        zone = zone[:-2] + pick("", ":") + zone[-2:]
    text = f"{local:%Y-%m-%d}{pick('T', 't', ' ')}{local:%H:%M:%S}{fraction}{zone}"
    assert _close(parse_time(pick("", " ") + text + pick("", " ")), moment)
    assert pl.select(pl.lit(text).str.contains(ISO_8601)).item(), "polars reads the same syntax"


@given(INSTANTS.filter(lambda moment: moment.year > 1973), st.sampled_from([1, 10**3, 10**6, 10**9]), st.booleans())
def test_the_magnitude_of_a_number_tells_its_unit(moment: datetime, of_a_second: int, as_text: bool) -> None:
    microseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    exact = microseconds * of_a_second // 10**6
    assert _close(parse_time(str(exact) if as_text else exact), moment) or of_a_second < 10**6
    assert abs(parse_time(exact) - microseconds / 10**6) < 1 / min(of_a_second, 10**6)
    assert abs(parse_time(microseconds / 10**6) - microseconds / 10**6) < 1e-6


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2026-03-02T10:26:45.582Z", 1772447205.582),
        ("2026-03-02 10:26:45+00", 1772447205.0),
        ("2026-03-02 10:26Z", 1772447160.0),
        ("2026-03-02T10:26:45.5 +0530", 1772427405.5),
        ("1772447205.5", 1772447205.5),
        (0, 0.0),
        (-1.5, -1.5),
    ],
)
def test_spellings_of_clients(value: Any, seconds: float) -> None:
    assert parse_time(value) == seconds


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("2026-03-02T10:26:45", "has no zone; end it with Z"),
        ("2026-03-02", "is a day without its time"),
        ("03-02-2026 10:26:45Z", "may begin with the day or the month"),
        ("3/2/26", "may begin with the day or the month"),
        ("2.3.2026 10:00", "may begin with the day or the month"),
        (20260302, "20260302 spells a date"),
        (20260302.0, "20260302 spells a date"),
        ("20260302102645", "20260302102645 spells a date"),
        ("2026-02-30T10:00:00Z", "day is out of range"),
        ("2026-13-02T10:00:00Z", "month must be in"),
        ("2026-03-02T24:00:00Z", "is no time"),
        ("2026-03-02T10:00:00+24:00", "is no time"),
        ("now", "is no time; write one such as"),
        ("", "is no time"),
        ("9" * 5000, "is no time"),
        ("9" * 30, "too large"),
        (10**400, "too large"),
        (float("nan"), "nan is no time"),
        (float("inf"), "inf is no time"),
        (True, "not bool"),
        ([], "not list"),
    ],
)
def test_what_may_be_misread_is_refused_with_the_reason(value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        parse_time(value)
    assert len(str(error.value)) < 200


def test_a_long_text_is_refused_at_once() -> None:
    for text in ("2026-03-02 10:26" + " " * 10**6 + "x", " " * 10**6 + "x", "2026-03-02" + " " * 10**6):
        with pytest.raises(ValueError, match=r"is no time|without its time"):
            parse_time(text)

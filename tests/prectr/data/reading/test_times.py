"""Times: every usual spelling of one moment, counts by magnitude, and the fault of every other spelling."""

from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.data.reading import times
from prectr.data.reading.times import of_counts, of_format, parse_times

MOMENT = datetime(2026, 3, 2, 10, 26, 45, tzinfo=UTC)


def _parse(*values: str | None, zone: str | None = None) -> tuple[list[datetime | None], list[str | None]]:
    parsed = parse_times(pl.Series(values, dtype=pl.String), zone)
    return parsed.times.to_list(), parsed.faults.to_list()


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-02T10:26:45Z", "2026-03-02t10:26:45z", "2026-03-02 10:26:45 UTC", "2026-03-02 10:26:45+00",
        "2026-03-02 10:26:45+0000", "2026-03-02 10:26:45+00:00", "2026-03-02T10:26:45.000000000Z", "20260302T102645Z",
        "2026-03-02 11:26:45 +01:00", "2026-03-02T11:26:45+01", "2026-03-02 05:56:45-0430", "2026-03-02T10:26:45,0Z",
        " 2026-03-02 10:26:45.0 GMT ", "2026-03-02 12:26:45 UTC+02", "2026-03-02 09:26:45\u221201:00",
        "1772447205", "1772447205.0", "1772447205000", "1772447205000000", "1772447205000000000", "+1772447205",
    ],
)  # fmt: skip
def test_every_spelling_of_a_moment(text: str) -> None:
    assert _parse(text) == ([MOMENT], [None])
    assert _parse("2026-03-02T10:26:45Z", text, None) == ([MOMENT, MOMENT, None], [None] * 3)
    assert _parse(text, zone="Europe/Berlin") == ([MOMENT], [None]), "a zone that is stated counts"


def test_fractions_are_kept_to_the_microsecond() -> None:
    expected = MOMENT + timedelta(microseconds=582_001)
    texts = ["2026-03-02 10:26:45.582001 UTC", "2026-03-02T10:26:45.582001Z", "2026-03-02T10:26:45.582001999+00"]
    assert _parse(*texts) == ([expected] * 3, [None] * 3)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("2026-03-02 10:26:45", times.NO_ZONE), ("2026-03-02T10:26", times.NO_ZONE), ("20260302T1026", times.NO_ZONE),
        ("2026-03-02", times.NO_TIME), ("2026-03-02Z", times.NO_TIME), ("20260302", times.SPELLS_A_DAY),
        ("03-02-2026", times.AMBIGUOUS), ("03/02/2026 10:00:00", times.AMBIGUOUS), ("3.2.26", times.AMBIGUOUS),
        ("03-02-2026T10:00:00Z", times.AMBIGUOUS), ("03/03/2026", times.AMBIGUOUS), ("2026-02-30T10:00:00Z", None),
        ("31/12/2026 10:00", times.NOT_A_TIME), ("12/31/2026 10:00", times.NOT_A_TIME),
        ("2026-13-01T10:00:00Z", None), ("2026-03-02T25:00:00Z", None), ("yesterday", times.NOT_A_TIME), ("", None),
        ("2026-03-02T10:26:45+99:00", None), ("nan", times.NOT_A_TIME), ("-", times.NOT_A_TIME),
        ("99999999999999999999999", times.NOT_ON_THE_CALENDAR), ("-99999999999", times.NOT_ON_THE_CALENDAR),
        ("2026-03-02T10:26:45 Europe/Berlin", times.NOT_A_TIME), ("Mon Mar  2 10:26:45 2026", times.NOT_A_TIME),
    ],
)  # fmt: skip
def test_any_other_spelling_is_a_fault(text: str, fault: str | None) -> None:
    found, faults = _parse(text)
    assert found == [None]
    assert faults[0] is not None and fault in (None, faults[0])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_row_without_a_zone_is_the_faulty_one(place: int) -> None:
    texts = ["2026-03-02T10:26:45Z"] * 3
    texts[place] = "2026-03-02T10:26:45"
    found, faults = _parse(*texts)
    assert [moment is None for moment in found] == [number == place for number in range(3)]
    assert faults == [times.NO_ZONE if number == place else None for number in range(3)]


def test_a_stated_zone_and_its_skipped_hour() -> None:
    texts = ["2026-07-01 12:00:00", "2026-03-29 02:30:00", "2026-10-25 02:30:00", "2026-07-01 12:00:00Z"]
    found, faults = _parse(*texts, zone="Europe/Berlin")
    assert found == [
        datetime(2026, 7, 1, 10, tzinfo=UTC), None, datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
        datetime(2026, 7, 1, 12, tzinfo=UTC),
    ]  # fmt: skip
    assert faults == [None, times.NOT_ON_THE_CALENDAR, None, None]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1772447205], pl.Int64), ([1772447205], pl.UInt32), ([1772447205.0], pl.Float64), ([1772447205_000], pl.Int64),
        ([1772447205_000_000], pl.UInt64), ([1772447205_000_000_000], pl.Int64), ([1772447205_000.0], pl.Float64),
    ],
)  # fmt: skip
def test_numbers_are_counts_by_their_magnitude(values: list[float], dtype: pl.DataType) -> None:
    parsed = parse_times(pl.Series(values, dtype=dtype))
    assert parsed.times.to_list() == [MOMENT] and parsed.faults.to_list() == [None]


def test_numbers_that_are_no_counts() -> None:
    values = pl.Series([20260302.0, float("nan"), float("inf"), -1e300, None, 0.0, 2_145_916_800.0])
    parsed = parse_times(values)
    assert parsed.times.to_list()[-2:] == [datetime(1970, 1, 1, tzinfo=UTC), datetime(2038, 1, 1, tzinfo=UTC)]
    faults = [times.SPELLS_A_DAY, *[times.NOT_ON_THE_CALENDAR] * 3, None, None, None]
    assert parsed.faults.to_list() == faults and parsed.times.null_count() == 5


def test_a_stated_unit_or_format_overrules() -> None:
    assert of_counts(pl.Series(["20260302", " 5.5 ", "x", None]), "s").times.to_list() == [
        datetime(1970, 8, 23, 11, 51, 42, tzinfo=UTC), datetime(1970, 1, 1, 0, 0, 5, 500_000, UTC), None, None,
    ]  # fmt: skip
    parsed = of_format(pl.Series(["03-02-2026", "2026", None]), "%m-%d-%Y", "UTC")
    assert parsed.times.to_list() == [datetime(2026, 3, 2, tzinfo=UTC), None, None]
    assert parsed.faults.to_list() == [None, times.NOT_IN_FORMAT, None]


def test_both_readings_of_an_ambiguous_day_are_told() -> None:
    assert times.readings("03/02/2026 10:00") == ["3 February 2026", "2 March 2026"]
    assert times.readings("31-12-2026") == ["31 December 2026"] and times.readings("2026-03-02") == []


@st.composite
def _spelled(draw: st.DrawFn) -> tuple[datetime, str]:
    """A moment and a spelling of it."""
    # Counts of milliseconds begin with 1973, see the heading of the module.
    moment = draw(st.datetimes(datetime(1974, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))
    digits = draw(st.integers(0, 6))
    step = 10 ** (6 - digits)
    moment = moment.replace(microsecond=moment.microsecond // step * step)
    if draw(st.booleans()) and not digits:
        unit = draw(st.sampled_from([1, 10**3, 10**6, 10**9]))
        return moment, str(round(moment.timestamp()) * unit)
    offset = draw(st.integers(-15 * 60, 15 * 60))
    zone = draw(st.sampled_from(["Z", " UTC", "z", " GMT", "+hh:mm", "+hhmm", " +hh:mm", "+hh"]))
    if "h" not in zone:
        offset = 0
    elif zone == "+hh":
        offset = offset // 60 * 60
    local = moment.astimezone(timezone(timedelta(minutes=offset)))
    sign, (hours, minutes) = "-" if offset < 0 else "+", divmod(abs(offset), 60)
    written = zone.replace("hh", f"{hours:02d}").replace("mm", f"{minutes:02d}").replace("+", sign)
    fraction = draw(st.sampled_from([".", ","])) + f"{local.microsecond:06d}"[:digits] if digits else ""
    day, clock = ("%Y-%m-%d", "%H:%M:%S") if draw(st.booleans()) else ("%Y%m%d", "%H%M%S")
    between = draw(st.sampled_from(["T", " ", "t", "  "]))
    blank = draw(st.sampled_from(["", " "]))
    return moment, blank + local.strftime(day) + between + local.strftime(clock) + fraction + written + blank


@settings(max_examples=300)
@given(st.lists(st.one_of(_spelled(), st.none()), min_size=1, max_size=8))
def test_times_in_any_mixture_of_spellings_come_back(values: list[tuple[datetime, str] | None]) -> None:
    found, faults = _parse(*(value and value[1] for value in values))
    assert found == [value and value[0] for value in values]
    assert not any(faults)


@settings(max_examples=150)
@given(st.lists(st.one_of(st.text(max_size=20), st.from_regex(r"[0-9T:Z+. /-]{1,30}", fullmatch=True)), max_size=8))
def test_no_text_breaks_the_parser_and_each_is_a_time_or_a_fault(texts: list[str]) -> None:
    found, faults = _parse(*texts)
    assert [moment is None for moment in found] == [fault is not None for fault in faults]
    alone = [_parse(text) for text in texts]
    assert found == [moment for moments, _ in alone for moment in moments], "neighbours change nothing"

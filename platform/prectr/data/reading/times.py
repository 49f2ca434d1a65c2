"""The parser of times: ISO 8601 with its zone, counts from 1970 by their magnitude, or a format that a mapping states.

    ISO 8601   2026-03-02T10:26:45.582Z, with a blank in place of T, fractions of up to nine digits, and the zone as Z,
               UTC, +00, +0000 or +00:00; also without dashes and colons
    counts     from 1970-01-01T00:00Z: below 1e11 seconds, below 1e14 milliseconds, below 1e17 microseconds, else
               nanoseconds (1e11 seconds are the year 5138, 1e11 milliseconds 1973)

The rules are those of `core.times`, which reads single times of requests and events; a test holds both equal.

Any other spelling is a fault, because it would have to be guessed: 03-02-2026 is a day in February or in March.
"""

import calendar
import re
from dataclasses import dataclass

import polars as pl

from prectr.core.times import BASIC_FORMS, DAY_WITHOUT_TIME, ISO_8601, SPELT_DATE, UNITS
from prectr.data.reading.bad_rows import ADVICE

UTC = pl.Datetime("us", "UTC")
NO_ZONE = "has no time zone"
NO_TIME = "is a day without a time and a zone"
AMBIGUOUS = "does not say which number is the day and which the month"
SPELLS_A_DAY = "is a number that spells a day"
NOT_A_TIME = "is not a time in ISO 8601"
NOT_ON_THE_CALENDAR = "is not on the calendar"
NOT_IN_FORMAT = "does not have the stated format"

ADVICE |= {
    NO_ZONE: "Write each time with its zone, e.g. 2026-03-01T10:00:00Z, or state it: `ts: {column, zone: UTC}` in the "
    "mapping of `prectr import mapping`.",
    NO_TIME: "Write each time as 2026-03-01T10:00:00Z.",
    SPELLS_A_DAY: "State how it is written: `ts: {column, format: '%Y%m%d', zone: UTC}` in the mapping of "
    "`prectr import mapping`.",
    NOT_A_TIME: "State how it is written: `ts: {column, format, zone}` in the mapping of `prectr import mapping`.",
}


def _both_readings(content: str) -> str:
    found = re.search(r"\b\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})\b", content)
    both = " or ".join(readings(found.group())) if found else ""
    said = f"{found.group()} is {both}. " if found and both else ""
    return (
        f"{said}State how it is written: `ts: {{column, format: '%m-%d-%Y', zone: UTC}}` in the mapping of "
        "`prectr import mapping`."
    )


ADVICE[AMBIGUOUS] = _both_readings
_FAST = ("%Y-%m-%dT%H:%M:%S%.fZ", "%Y-%m-%d %H:%M:%S%.f%:z", "%Y-%m-%dT%H:%M:%S%.f%:z")
"""Common spellings, which polars parses quickly."""
_SHORT_DAY = r"^\s*(?P<a>\d{1,2})[-/.](?P<b>\d{1,2})[-/.](?P<c>\d{4}|\d{2})(?:\D.*)?$"
_NUMBER = r"^\s*[+-]?\d+(?:\.\d*)?\s*$"
_MONTHS = list(calendar.month_name)[1:]


@dataclass(frozen=True)
class Parsed:
    """Times, and the faults of those that cannot be read.

    Attributes:
        times: Datetime(us, UTC); null where the value is null or has a fault.
        faults: a reason that follows the column's name, such as `NO_ZONE`; null for good values.
    """

    times: pl.Series
    faults: pl.Series


def parse_times(values: pl.Series, zone: str | None = None) -> Parsed:
    """Parse texts or numbers.

    Args:
        values: String or a numeric type.
        zone: zone of times that state none; None: such times are faults.
    """
    if values.dtype.is_numeric():
        return of_numbers(values)
    times = _parse_fast(values)
    left = times.is_null() & values.is_not_null()
    if not left.any():
        return Parsed(times, pl.repeat(None, values.len(), dtype=pl.String, eager=True))
    odd = values.filter(left).unique()
    parsed = _parse_distinct(odd, zone)
    table = pl.DataFrame({"value": odd, "time": parsed.times, "fault": parsed.faults})
    joined = values.to_frame("value").join(table, on="value", how="left", maintain_order="left")
    return Parsed(times.zip_with(times.is_not_null(), joined["time"]), joined["fault"])


def of_numbers(values: pl.Series, unit: str | None = None) -> Parsed:
    """Convert counts from 1970.

    Args:
        values: a numeric type.
        unit: s, ms, us or ns; None: by the magnitude of each value.
    """
    exact = pl.Int64 if values.dtype.is_integer() else pl.Float64
    count, given = pl.col("count"), pl.col("given")
    size = count.cast(pl.Float64).abs()
    micros = {"s": count * 1_000_000, "ms": count * 1_000, "us": count, "ns": count // 1_000}
    day = pl.lit(False)
    if unit is None:
        limits = [limit for limit, _ in UNITS]
        by_size = pl.when(size < limits[0]).then(micros["s"]).when(size < limits[1]).then(micros["ms"])
        chosen = by_size.when(size < limits[2]).then(micros["us"]).otherwise(micros["ns"])
        whole = count.cast(pl.Int64, strict=False)
        day = (count == whole) & whole.cast(pl.String).str.contains(SPELT_DATE)
    else:
        chosen = micros[unit]
    chosen = chosen if exact == pl.Int64 else chosen.round()
    moment = chosen.cast(pl.Int64, strict=False).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    moment = pl.when(moment.dt.year().is_between(1, 9999) & ~day & (size < UNITS[3][0])).then(moment)
    fault = pl.when(day).then(pl.lit(SPELLS_A_DAY)).when(moment.is_null()).then(pl.lit(NOT_ON_THE_CALENDAR))
    frame = pl.DataFrame({"count": values.cast(exact, strict=False), "given": values.is_not_null()})
    result = frame.select(moment.alias("time"), pl.when(given).then(fault).alias("fault"))
    return Parsed(result["time"], result["fault"])


def of_format(texts: pl.Series, spelling: str, zone: str | None) -> Parsed:
    """Parse texts in a format of strftime; `zone` is that of times that state none (the format has no %z)."""
    times = texts.str.strip_chars().str.to_datetime(spelling, time_unit="us", strict=False)
    times = times.dt.convert_time_zone("UTC") if zone is None else in_zone(times, zone)
    return Parsed(times, fault_where(times.is_null() & texts.is_not_null(), NOT_IN_FORMAT))


def in_zone(naive: pl.Series, zone: str) -> pl.Series:
    """Convert local times to UTC. An hour that occurs twice is the first one; a skipped hour gives null."""
    local = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return local.dt.convert_time_zone("UTC")


def readings(text: str) -> list[str]:
    """Both readings of a day whose order of day and month is not stated.

    >>> readings("03-02-2026")
    ['3 February 2026', '2 March 2026']
    """
    found = re.match(_SHORT_DAY, text)
    if found is None:
        return []
    first, second, year = int(found["a"]), int(found["b"]), found["c"]
    orders = dict.fromkeys([(first, second), (second, first)])
    return [f"{day} {_MONTHS[month - 1]} {year}" for day, month in orders if 1 <= month <= 12 and 1 <= day <= 31]


def _parse_fast(values: pl.Series) -> pl.Series:
    """Times in the spelling of the first value; null for values of another spelling."""
    first = values.drop_nulls().head(1)
    for spelling in _FAST:
        if first.str.to_datetime(spelling, time_unit="us", strict=False).count():
            times = values.str.to_datetime(spelling, time_unit="us", strict=False)
            zoned = isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone is not None
            times = times.dt.convert_time_zone("UTC") if zoned else times.dt.replace_time_zone("UTC")
            on_calendar = times.dt.year().is_between(1, 9999)
            return times if on_calendar.all() else times.zip_with(on_calendar, pl.Series([None], dtype=UTC))
    return pl.repeat(None, values.len(), dtype=UTC, eager=True)


def _parse_distinct(texts: pl.Series, zone: str | None) -> Parsed:
    """Parse texts of any spelling, by the rules of `core.times.parse_time`."""
    written = texts
    for basic, extended in BASIC_FORMS:
        written = written.str.replace(basic, extended.replace("<", "${").replace(">", "}"))
    parts = written.str.extract_groups(ISO_8601).struct.unnest()
    two = (pl.col(name).fill_null("0").str.zfill(2) for name in ("month", "day", "hour", "minute", "second"))
    clock = pl.format("{}-{}-{} {}:{}:{}.{}", "year", *two, pl.col("fraction").fill_null("0"))
    hours, minutes = (pl.col(name).cast(pl.Int64).fill_null(0) for name in ("zone_hours", "zone_minutes"))
    sign = pl.when(pl.col("sign") == "+").then(1).otherwise(-1)
    pieces = parts.select(clock=clock, zone="zone", offset=pl.duration(minutes=sign * (60 * hours + minutes)))
    naive = pieces["clock"].str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
    zoned = (naive - pieces["offset"].cast(pl.Duration("us"))).dt.replace_time_zone("UTC")
    states_zone = pieces["zone"].is_not_null()
    local = in_zone(naive, zone) if zone is not None else pl.repeat(None, texts.len(), dtype=UTC, eager=True)
    times = zoned.zip_with(states_zone, local)
    is_number = texts.str.contains(_NUMBER)
    is_whole = is_number & ~texts.str.contains(".", literal=True)
    stripped = texts.str.strip_chars()
    whole = of_numbers(stripped.zip_with(is_whole, pl.Series([None], dtype=pl.String)).cast(pl.Int64, strict=False))
    real = of_numbers(
        stripped.zip_with(is_number & ~is_whole, pl.Series([None], dtype=pl.String)).cast(pl.Float64, strict=False)
    )
    frame = pl.DataFrame(
        {"text": texts, "naive": naive, "time": times, "zoned": states_zone, "number": is_number}
        | {"whole": whole.times, "real": real.times, "whole_fault": whole.faults, "real_fault": real.faults}
    )
    short = pl.col("text").str.extract_groups(_SHORT_DAY)
    first, second = (short.struct.field(name).cast(pl.Int32) for name in ("a", "b"))
    fault = (
        pl.when(pl.coalesce("time", "whole", "real").is_not_null())
        .then(None)
        .when("number")
        .then(pl.coalesce("whole_fault", "real_fault", pl.lit(NOT_ON_THE_CALENDAR)))
        .when(pl.col("naive").is_not_null() & ~pl.col("zoned"))
        .then(pl.lit(NO_ZONE if zone is None else NOT_ON_THE_CALENDAR))
        .when(pl.col("text").str.contains(DAY_WITHOUT_TIME))
        .then(pl.lit(NO_TIME))
        .when(first.is_between(1, 12) & second.is_between(1, 12))
        .then(pl.lit(AMBIGUOUS))
        .otherwise(pl.lit(NOT_A_TIME))
    )
    result = frame.select(pl.coalesce("time", "whole", "real").alias("time"), fault.alias("fault"))
    return Parsed(result["time"], result["fault"])


def of_counts(values: pl.Series, unit: str) -> Parsed:
    """Convert counts of a unit (s, ms, us or ns), as numbers or as texts."""
    if values.dtype.is_numeric():
        return of_numbers(values, unit)
    exact = values.str.strip_chars().cast(pl.Int64, strict=False)
    numbers: pl.Series = exact
    if exact.null_count() > values.null_count():
        numbers = values.str.strip_chars().cast(pl.Float64, strict=False)
    parsed = of_numbers(numbers, unit)
    unreadable = fault_where(numbers.is_null() & values.is_not_null(), "is not a number")
    return Parsed(parsed.times, parsed.faults.zip_with(parsed.faults.is_not_null(), unreadable))


def fault_where(bad: pl.Series, reason: str) -> pl.Series:
    """`reason` where `bad` is true, else null."""
    return bad.to_frame("bad").select(pl.when("bad").then(pl.lit(reason))).to_series()

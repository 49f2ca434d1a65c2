"""Times as clients and logs write them: ISO 8601 text with its zone, or a number since 1970."""

import math
import re
from datetime import UTC, datetime, timedelta

ISO_8601 = (
    r"^\s*(?P<year>[0-9]{4})-(?P<month>[0-9]{1,2})-(?P<day>[0-9]{1,2})(?:[Tt]|\s+)(?P<hour>[01]?[0-9]|2[0-3])"
    r":(?P<minute>[0-5]?[0-9])(?::(?P<second>[0-5]?[0-9])(?:[.,](?P<fraction>[0-9]{1,9})[0-9]*)?)?"
    r"(?:\s*(?P<zone>[Zz]|UTC|GMT|(?:UTC|GMT)?(?P<sign>[-+\u2212])(?P<zone_hours>[01][0-9]|2[0-3])"
    r"(?::?(?P<zone_minutes>[0-5][0-9]))?))?\s*$"
)
"""A time in ISO 8601, with or without its zone; the syntax is that of Python and of polars. Days of a month that do not
exist fit it too."""
BASIC_FORMS = (
    (r"^\s*([0-9]{4})([0-9]{2})([0-9]{2})([Tt]|\s+)", "<1>-<2>-<3><4>"),
    (r"^([0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt]|\s+))([0-9]{2})([0-9]{2})([0-9]{2})", "<1><2>:<3>:<4>"),
    (r"^([0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt]|\s+))([0-9]{2})([0-9]{2})", "<1><2>:<3>"),
)
"""Parts of the basic form of ISO 8601 (20260302T102645Z), and the form with dashes and colons that replaces each."""
UNITS = ((1e11, 1), (1e14, 10**3), (1e17, 10**6), (1e20, 10**9))
"""Magnitudes below which numbers count a unit, and how many of the unit a second has: seconds, then milli-, micro- and
nanoseconds. So a number of milliseconds is read as such from March 1973 on."""
SPELT_DATE = (
    r"^(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])"
    r"(?:(?:[01][0-9]|2[0-3])[0-5][0-9](?:[0-5][0-9](?:[0-9]{3})?)?)?$"
)
"""Digits of a number that spells a date (20260302), also with its time. Such a number counts nothing since 1970."""
DAY_WITHOUT_TIME = r"^\s*[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}\s*(?:[Zz]|UTC)?\s*$"
AMBIGUOUS_ORDER = r"^\s*[0-9]{1,2}[-/.][0-9]{1,2}[-/.][0-9]{2,4}(?:[^0-9]|$)"
"""A date whose first number may be the day or the month."""
_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]*)?")
_SHOWN_CHARACTERS = 40
_EXAMPLE = "such as 2026-03-02T10:26:45Z"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_time(value: str | int | float) -> float:
    """Read a time as seconds since 1970.

    >>> parse_time("2026-03-02T10:26:45.582Z"), parse_time("2026-03-02 12:26:45,582 +02")
    (1772447205.582, 1772447205.582)
    >>> parse_time(1772447205.582), parse_time(1772447205582), parse_time("1772447205582000000")
    (1772447205.582, 1772447205.582, 1772447205.582)
    >>> parse_time("2026-03-02T10:26:45")
    Traceback (most recent call last):
    ValueError: '2026-03-02T10:26:45' has no zone; end it with Z or an offset such as +02:00
    >>> parse_time("03-02-2026 10:26 Z")
    Traceback (most recent call last):
    ValueError: '03-02-2026 10:26 Z' may begin with the day or the month; write a time such as 2026-03-02T10:26:45Z
    >>> parse_time(20260302)
    Traceback (most recent call last):
    ValueError: 20260302 spells a date; write a time such as 2026-03-02T10:26:45Z, or seconds since 1970

    Args:
        value: ISO 8601 text with its zone, or a number since 1970, whose unit (seconds to nanoseconds) follows from its
            magnitude; a number may be text.

    Raises:
        ValueError: it is neither; the message says why, in words for the client.
    """
    if not isinstance(value, str):
        return _of_number(value)
    text = value.strip()
    for basic, extended in BASIC_FORMS:
        text = re.sub(basic, extended.replace("<", r"\g<"), text)
    if match := re.match(ISO_8601, text):
        return _of_text(text, match)
    if _NUMBER.fullmatch(text):
        return _of_number(float(text) if "." in text else int(text))
    named = repr(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}...")
    if re.match(DAY_WITHOUT_TIME, text):
        raise ValueError(f"{named} is a day without its time; write a time {_EXAMPLE}")
    if re.match(AMBIGUOUS_ORDER, text):
        raise ValueError(f"{named} may begin with the day or the month; write a time {_EXAMPLE}")
    raise ValueError(f"{named} is no time; write one {_EXAMPLE}, or seconds since 1970")


def _of_number(number: int | float) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(f"a time is text {_EXAMPLE} or a number since 1970, not {type(number).__name__}")
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError(f"{number} is no time")
    if number == int(number) and re.match(SPELT_DATE, str(int(number))):
        raise ValueError(f"{int(number)} spells a date; write a time {_EXAMPLE}, or seconds since 1970")
    for limit, of_a_second in UNITS:
        if abs(number) < limit:
            return number / of_a_second
    raise ValueError("the number is too large for a time, even in nanoseconds since 1970")


def _of_text(text: str, match: re.Match[str]) -> float:
    """Seconds since 1970 of a text that fits `ISO_8601`."""
    part = match.groupdict()
    if part["zone"] is None:
        raise ValueError(f"{text!r} has no zone; end it with Z or an offset such as +02:00")
    numbers = (int(part[name] or 0) for name in ("year", "month", "day", "hour", "minute", "second"))
    try:
        moment = datetime(*numbers, tzinfo=UTC)  # type: ignore[misc,arg-type]
    except ValueError as error:
        raise ValueError(f"{text!r} is no time: {error}") from None
    offset = timedelta(hours=int(part["zone_hours"] or 0), minutes=int(part["zone_minutes"] or 0))
    seconds = (moment - _EPOCH - (offset if part["sign"] in (None, "+") else -offset)) // timedelta(seconds=1)
    fraction = (part["fraction"] or "").ljust(9, "0")
    return (seconds * 10**9 + int(fraction)) / 10**9

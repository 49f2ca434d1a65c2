"""Errors that a user can correct.

Each message says what is wrong, where, and what to do. The command line prints these errors without a traceback and
exits with their `exit_code`. Any other exception is a bug of ours and keeps its traceback.

What a message quotes of a user's file or a server's reply is bounded by `quoted`, `listed` and `shorten`. Credentials
in URLs are masked.
"""

from collections.abc import Sequence

from prectr.core.secrets import masked


class PrectrError(Exception):
    """The work failed for a reason that the user can correct (exit code 1)."""

    exit_code = 1

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(masked(one) if isinstance(one, str) else one for one in arguments))


class UsageError(PrectrError):
    """Wrong usage or configuration; no work was started (exit code 2)."""

    exit_code = 2


def quoted(value: object, limit: int = 80) -> str:
    """The `repr` of a value, cut to `limit` characters; a cut one says how long the whole is.

    >>> quoted("red\\nshoes")
    "'red\\\\nshoes'"
    >>> quoted("a" * 5000, limit=4)
    "'aaa... (5,002 characters)"
    """
    whole = repr(value)
    return whole if len(whole) <= limit else f"{whole[:limit]}... ({len(whole):,} characters)"


def listed(names: Sequence[object], most: int = 10, limit: int = 80) -> str:
    """The first `most` names and the number of the others; each name is one line of at most `limit` characters.

    >>> listed(["price", "title"])
    'price, title'
    >>> listed(range(40), most=3)
    '0, 1, 2 and 37 more'
    """
    more = len(names) - most
    return ", ".join(shorten(name, limit) for name in names[:most]) + (f" and {more:,} more" if more > 0 else "")


def shorten(text: object, limit: int = 300) -> str:
    """Fold a text, such as that of another library's error, to one line of at most `limit` characters and an ellipsis.

    >>> shorten("Bad\\n  gateway")
    'Bad gateway'
    >>> shorten("a" * 5000, limit=4)
    'aaaa...'
    """
    line = " ".join(str(text).split())
    return line if len(line) <= limit else line[:limit] + "..."

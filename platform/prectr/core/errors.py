"""Errors that a user can correct.

Each message says what is wrong, where, and what to do. The command line prints these errors without a traceback and
exits with their `exit_code`. Any other exception is a bug of ours and keeps its traceback.
"""


class PrectrError(Exception):
    """The work failed for a reason that the user can correct (exit code 1)."""

    exit_code = 1


class UsageError(PrectrError):
    """Wrong usage or configuration; no work was started (exit code 2)."""

    exit_code = 2

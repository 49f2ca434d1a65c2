"""Errors that a user can mend.

Every error that reaches a user says what is wrong, where, and what to do. The command line prints these without a
traceback and ends with `exit_code`; anything else is our own bug and keeps its traceback.
"""


class PrectrError(Exception):
    """The work failed for a reason the user can act on (exit code 1)."""

    exit_code = 1


class UsageError(PrectrError):
    """Bad usage or configuration: nothing was started (exit code 2)."""

    exit_code = 2

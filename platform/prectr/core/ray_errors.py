"""Recovery of a `PrectrError` that was raised inside a Ray task or actor.

Ray wraps such an error: the message is the worker's traceback, and sometimes only the text is left (Ray Data, the
constructor of an actor). Nothing here imports Ray, because the command line examines every error with it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from prectr.core.errors import PrectrError, UsageError

_KINDS = {kind.__name__: kind for kind in (PrectrError, UsageError)}
# The last lines of a traceback, up to an empty line.
_RAISED = re.compile(rf"^prectr\.core\.errors\.({'|'.join(_KINDS)}): (.+(?:\n.+)*)", re.MULTILINE)


@contextmanager
def user_errors() -> Iterator[None]:
    """Raise the `PrectrError` of a task in the block instead of the error in which Ray wrapped it."""
    try:
        yield
    except Exception as error:
        user_error = find_user_error(error)
        if user_error is None or user_error is error:
            raise
        raise user_error from None


def find_user_error(error: BaseException) -> PrectrError | None:
    """The `PrectrError` that `error` is or wraps; None for any other error, which is a bug of ours."""
    # RayTaskError subclasses the class of its cause, so it may itself be a PrectrError: look at its cause first.
    cause = getattr(error, "cause", None)
    if isinstance(cause, PrectrError):
        return cause
    if isinstance(error, PrectrError):
        return error
    if not type(error).__module__.startswith("ray."):
        return None
    mentions = _RAISED.findall(str(error))
    if not mentions:
        return None
    kind, message = mentions[-1]
    return _KINDS[kind](message)

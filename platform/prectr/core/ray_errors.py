"""A user's mistake that was raised inside a Ray task or actor, found again below Ray's wrappers.

Ray hands such an error over with the worker's traceback as its text, or as text only (Ray Data, an actor's
constructor). Nothing here imports Ray: the command line looks at every error with it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from prectr.core.errors import PrectrError, UsageError

_KINDS = {kind.__name__: kind for kind in (PrectrError, UsageError)}
# The last line, or lines, of a traceback; an empty line ends them.
_RAISED = re.compile(rf"^prectr\.core\.errors\.({'|'.join(_KINDS)}): (.+(?:\n.+)*)", re.MULTILINE)


@contextmanager
def user_errors() -> Iterator[None]:
    """Raise what a task of the block told the user, rather than Ray's account of how the task failed."""
    try:
        yield
    except Exception as error:
        told = find_user_error(error)
        if told is None or told is error:
            raise
        raise told from None


def find_user_error(error: BaseException) -> PrectrError | None:
    """The `PrectrError` that `error` is or carries, as it was raised; None for anything else: a bug of ours."""
    cause = getattr(error, "cause", None)  # of RayTaskError, which is a PrectrError itself where its cause is one
    if isinstance(cause, PrectrError):
        return cause
    if isinstance(error, PrectrError):
        return error
    if not type(error).__module__.startswith("ray."):
        return None
    raised = _RAISED.findall(str(error))
    if not raised:
        return None
    kind, message = raised[-1]
    return _KINDS[kind](message)

"""Full garbage collections at times of our choice.

A full collection looks at every container of the process: modules, models, caches. That takes about a tenth of a
second, in which no request is answered, and Python starts one whenever the number of objects has grown by a quarter.
Nearly all garbage is freed without it, by reference counts and by the collections of young objects.
"""

import gc
import time

COLLECT_SECONDS = 600.0
"""Seconds between two full collections."""
_NEVER = 1_000_000_000


class GarbageTimes:
    """Decides when this process makes full collections, until `close`."""

    def __init__(self) -> None:
        self._thresholds = gc.get_threshold()
        self._next = time.monotonic() + COLLECT_SECONDS

    def settle(self) -> None:
        """Collect now, and leave all objects of now, such as modules and models, out of later collections."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(*self._thresholds[:2], _NEVER)
        self._next = time.monotonic() + COLLECT_SECONDS

    def collect_if_due(self) -> None:
        """Make a full collection if `COLLECT_SECONDS` have passed."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + COLLECT_SECONDS
            gc.collect()

    def close(self) -> None:
        """Let Python decide again."""
        gc.set_threshold(*self._thresholds)
        gc.unfreeze()

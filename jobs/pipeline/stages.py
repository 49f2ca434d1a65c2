"""Record of the stages that a driver ran: the time of each, and whether it was up to date."""

import time
from collections.abc import Callable
from typing import Any

from prectr.core.artifacts import StageResult


class Stages:
    """Stages that were run.

    Attributes:
        done: (name, seconds, skipped) in order.
    """

    def __init__(self) -> None:
        self.done: list[tuple[str, float, bool]] = []

    def run(self, name: str, work: Callable[[], StageResult]) -> StageResult:
        """Run a stage."""
        clock = time.perf_counter()
        result = work()
        self.done.append((name, time.perf_counter() - clock, result.skipped))
        return result

    def time(self, name: str, work: Callable[[], Any]) -> None:
        """Run work that is no stage and is never up to date."""
        clock = time.perf_counter()
        work()
        self.done.append((name, time.perf_counter() - clock, False))

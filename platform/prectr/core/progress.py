"""Progress lines of the stages, on standard error; standard output is for results only.

On a terminal the line is updated in place (rows, rows/s, time left). Elsewhere a plain line is printed at most every
`PLAIN_INTERVAL_SECONDS`.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from prectr.core.secrets import masked

PLAIN_INTERVAL_SECONDS = 10.0

_verbosity = 0


class Bar(Protocol):
    """The progress line, as a stage uses it."""

    def advance(self, count: int) -> None:
        """Add `count` finished units."""


def set_verbosity(level: int) -> None:
    """Set the verbosity: -1 quiet, 0 normal, 1 and above: messages of Ray and the libraries too."""
    global _verbosity
    _verbosity = level


def verbosity() -> int:
    """The level that `-v` or `--quiet` set."""
    return _verbosity


def say(text: str) -> None:
    """Print one line for the user."""
    if _verbosity >= 0:
        print(masked(text), file=sys.stderr, flush=True)


@contextmanager
def track(name: str, total: int | None = None, unit: str = "rows") -> Iterator[Bar]:
    """Show one progress line during the block.

    Args:
        name: name of the work, e.g. "label".
        total: number of units if known; needed to estimate the time left.
        unit: plural name of a unit, e.g. "pairs".
    """
    bar: _Live | _Plain
    bar = _Live(name, total, unit) if _verbosity >= 0 and sys.stderr.isatty() else _Plain(name, total, unit)
    try:
        yield bar
    finally:
        bar.close()


class _Plain:
    """Plain lines, for logs and pipes."""

    def __init__(self, name: str, total: int | None, unit: str) -> None:
        self._name, self._total, self._unit = name, total, unit
        self._done = 0
        self._started = self._last = time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._last >= PLAIN_INTERVAL_SECONDS:
            self._last = now
            say(self._line(now))

    def close(self) -> None:
        if self._done:
            say(self._line(time.monotonic()))

    def _line(self, now: float) -> str:
        seconds = max(now - self._started, 1e-6)
        rate = self._done / seconds
        of_total = f" of {self._total:,}" if self._total else ""
        left = (
            f", {(self._total - self._done) / rate:.0f} s left" if self._total and 0 < self._done < self._total else ""
        )
        return f"  {self._name}: {self._done:,}{of_total} {self._unit}, {rate:,.0f}/s{left}"


class _Live:
    """One rich progress line, for a terminal."""

    def __init__(self, name: str, total: int | None, unit: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._started = time.monotonic()
        self._done = 0
        self._unit = unit
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[rows]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task: Any = self._progress.add_task(name, total=total, rows="")
        self._progress.start()

    def advance(self, count: int) -> None:
        self._done += count
        rate = self._done / max(time.monotonic() - self._started, 1e-6)
        self._progress.update(self._task, advance=count, rows=f"{self._done:,} {self._unit}, {rate:,.0f}/s")

    def close(self) -> None:
        self._progress.stop()

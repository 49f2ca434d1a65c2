"""Processes that this process started: attempts with a time limit, the end of all of them, and signals that stop."""

import ctypes
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

_TERMINATE_SECONDS = 0.5
_POLL_SECONDS = 0.05
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Make orphans below this process its own children, so that `end_children` sees them. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(without: Collection[psutil.Process] = ()) -> list[psutil.Process]:
    """Direct children of this process, without some."""
    return [child for child in psutil.Process().children() if child not in without]


def has_ended(process: psutil.Process) -> bool:
    """Whether a process is gone, or a zombie. While another of its threads runs, it holds its files and ports."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
    except psutil.NoSuchProcess:
        return True


def end_children(seconds: float, without: Collection[psutil.Process] = ()) -> list[psutil.Process]:
    """End all processes below this one: SIGTERM, then SIGKILL. It waits until each of them has left the process table.

    Args:
        seconds: time limit.
        without: direct children to spare, with all processes below them.

    Returns:
        Processes that are still alive.
    """
    started = time.monotonic()
    while direct := children(without):
        elapsed = time.monotonic() - started
        left = [process for process in _with_descendants(direct) if not has_ended(process)]
        if elapsed > seconds:
            return left
        for process in left:
            with suppress(psutil.NoSuchProcess):
                if elapsed < _TERMINATE_SECONDS:
                    process.terminate()
                else:
                    process.kill()
        # All are waited for: an orphan becomes a direct child, and shows in the next pass, once its parent has ended.
        psutil.wait_procs({*direct, *left}, _TERMINATE_SECONDS if elapsed < _TERMINATE_SECONDS else 2 * _POLL_SECONDS)
    return []


def _with_descendants(direct: Collection[psutil.Process]) -> set[psutil.Process]:
    found = set(direct)
    for child in direct:
        with suppress(psutil.NoSuchProcess):
            found.update(child.children(recursive=True))
    return found


def attempt(work: Callable[[], Any], seconds: float, hopeless: Callable[[], bool] = lambda: False) -> bool:
    """Call `work` in a thread and wait for it; errors are ignored.

    Args:
        work: what to do.
        seconds: time limit. The thread of work that takes longer runs on.
        hopeless: true: do not wait any longer.

    Returns:
        Whether the work ended in time.
    """

    def run() -> None:
        with suppress(Exception):
            work()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    deadline = time.monotonic() + seconds
    while thread.is_alive() and time.monotonic() < deadline and not hopeless():
        thread.join(_POLL_SECONDS)
    return not thread.is_alive()


def take_stop_signals() -> None:
    """Let the next SIGINT, SIGTERM or SIGHUP raise KeyboardInterrupt; later ones are ignored, so clean-up is not cut.

    Signals that the parent process chose to ignore stay ignored. Only the main thread can call this.
    """
    for number in _STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _stop(*_: object) -> None:
    ignore_stop_signals()
    raise KeyboardInterrupt


def ignore_stop_signals() -> None:
    """Ignore SIGINT, SIGTERM and SIGHUP from now on."""
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_signals_kept() -> Iterator[None]:
    """Restore the handlers of SIGINT, SIGTERM and SIGHUP after the block."""
    before = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Lock files, which a killed process gives up by itself; on NFS they reach all machines."""

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


class LockedError(Exception):
    """Another process holds a lock; the message says which."""


def this_process() -> str:
    """How a lock names its holder."""
    return f"process {os.getpid()} on {socket.gethostname()}"


@contextmanager
def exclusive(file: Path, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a lock file for the block; it is made, and goes away afterwards.

    Args:
        file: its directory must be there.
        on_wait: hears who holds it, before it is waited for; None waits for nobody.

    Raises:
        LockedError: another process holds it, and `on_wait` is None.
        OSError: the file cannot be written, or its file system has no locks.
    """
    lock = _locked(file, on_wait)
    try:
        lock.truncate(0)
        lock.write(this_process())
        lock.flush()
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.close()


def _locked(file: Path, on_wait: Callable[[str], None] | None) -> IO[str]:
    while True:
        lock = file.open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read() or "another process"
            if on_wait is None:
                lock.close()
                raise LockedError(holder) from None
            on_wait(holder)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if _lies_at(file, lock):
            return lock
        lock.close()  # who had it took the file away


def _lies_at(file: Path, lock: IO[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), file.stat())
    except FileNotFoundError:
        return False

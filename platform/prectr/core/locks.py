"""Lock files that exclude other processes. The operating system releases the lock of a killed process.

On NFS a lock excludes processes on all machines that mount the directory."""

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


class LockedError(Exception):
    """Another process holds the lock; the message names it."""


def this_process() -> str:
    """Name of this process, as a lock file holds it."""
    return f"process {os.getpid()} on {socket.gethostname()}"


@contextmanager
def exclusive(file: Path, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a lock file during the block. The file is created, and removed afterwards.

    Args:
        file: the lock file; its directory must exist.
        on_wait: called with the name of the holder before waiting for it; None: do not wait.

    Raises:
        LockedError: another process holds the lock, and `on_wait` is None.
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
        if _is_at(file, lock):
            return lock
        lock.close()  # the former holder removed the file, so this lock excludes nobody: try again


def _is_at(file: Path, lock: IO[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), file.stat())
    except FileNotFoundError:
        return False

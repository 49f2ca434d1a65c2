"""What running a command takes: its time, and the peak memory of its process and all processes below it."""

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import psutil

SAMPLE_SECONDS = 0.25


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        seconds: from the start of the process to its end.
        peak_gib: most memory of the process tree at a time (proportional set size: shared pages count once).
    """

    seconds: float
    peak_gib: float

    def to_json(self) -> dict[str, float]:
        """As a JSON object, rounded."""
        return {name: round(value, 3) for name, value in asdict(self).items()}


def measured(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end.

    Raises:
        SystemExit: it failed; what it said is on standard error.
    """
    started = time.perf_counter()
    process = subprocess.Popen(command, env=None if environment is None else dict(environment), stdout=sys.stderr)
    peak = _Peak(process.pid)
    code = process.wait()
    seconds = time.perf_counter() - started
    if code:
        raise SystemExit(f"failed with {code}: {' '.join(command)}")
    return Cost(seconds, peak.stop() / 2**30)


def median(costs: Sequence[Cost]) -> Cost:
    """The median time, and the highest peak."""
    return Cost(statistics.median(cost.seconds for cost in costs), max(cost.peak_gib for cost in costs))


class _Peak:
    """Samples a process tree in the background.

    A process that was once seen below the root is followed to its end, also when its parent is gone: Ray's are.
    """

    def __init__(self, root: int) -> None:
        self._seen = {psutil.Process(root)}
        self._most = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """The most bytes seen."""
        self._done.set()
        self._thread.join()
        return self._most

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            for process in list(self._seen):
                try:
                    self._seen.update(process.children(recursive=True))
                except psutil.NoSuchProcess:
                    self._seen.discard(process)
            self._most = max(self._most, sum(_share_of_memory(process) for process in self._seen))


def _share_of_memory(process: psutil.Process) -> int:
    """Proportional set size in bytes; 0 of a process that has just ended."""
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return 0

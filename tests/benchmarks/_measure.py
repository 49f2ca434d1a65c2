"""What running a command takes: time, and processor time and peak memory of its process and all processes below it."""

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import psutil

SAMPLE_SECONDS = 0.25
"""Between two samples, at least."""
SAMPLE_SHARE = 0.02
"""Share of a core that sampling may take: adding up the memory of Ray's processes takes a good part of a second."""


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        seconds: from the start of the process to its end.
        cpu_seconds: processor time of the process tree, sampled, so a little too low; unlike `seconds` it depends
            little on what else the machine does.
        peak_gib: most memory of the process tree at a time (proportional set size: shared pages count once).
    """

    seconds: float
    cpu_seconds: float
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
    tree = _Tree(process.pid)
    code = process.wait()
    seconds = time.perf_counter() - started
    if code:
        raise SystemExit(f"failed with {code}: {' '.join(command)}")
    tree.stop()
    return Cost(seconds, sum(tree.cpu_seconds.values()), tree.most_bytes / 2**30)


def median(costs: Sequence[Cost]) -> Cost:
    """The median times, and the highest peak."""
    return Cost(
        statistics.median(cost.seconds for cost in costs),
        statistics.median(cost.cpu_seconds for cost in costs),
        max(cost.peak_gib for cost in costs),
    )


class _Tree:
    """Samples a process tree in the background.

    A process that was once seen below the root is followed to its end, also when its parent is gone: Ray's are.

    Attributes:
        most_bytes: most memory of all processes at a time.
        cpu_seconds: by process, as last seen.
    """

    def __init__(self, root: int) -> None:
        self.most_bytes = 0
        self.cpu_seconds: dict[psutil.Process, float] = {psutil.Process(root): 0.0}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End sampling."""
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        alive = set(self.cpu_seconds)
        pause = SAMPLE_SECONDS
        while not self._done.wait(pause):
            memory, started = 0, time.thread_time()
            for process in list(alive):
                try:
                    alive.update(process.children(recursive=True))
                    times = process.cpu_times()
                    self.cpu_seconds[process] = times.user + times.system
                    memory += process.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    alive.discard(process)
            self.most_bytes = max(self.most_bytes, memory)
            pause = max(SAMPLE_SECONDS, (time.thread_time() - started) / SAMPLE_SHARE)

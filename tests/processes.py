"""What a killed driver of Ray leaves behind."""

import contextlib
import time

import psutil

AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


def end_agents(children: list[psutil.Process]) -> None:
    """Wait for the processes of a killed driver; Ray's own two agents would go by themselves only after minutes."""
    deadline = time.monotonic() + 40
    while left := [process for process in children if _name(process) not in ("", *AGENTS)]:
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.1)
    for process in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _name(process: psutil.Process) -> str:
    """Empty once it has ended."""
    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else process.name()
    except psutil.NoSuchProcess:
        return ""

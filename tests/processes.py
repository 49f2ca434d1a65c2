"""Processes of this checkout's code, and what a killed driver of Ray leaves behind."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from jobs.cluster.serve_host import free_port as free_port

ROOT = Path(__file__).parents[1]
CODE = f"{ROOT / 'platform'}{os.pathsep}{ROOT}"
"""PYTHONPATH of this checkout."""
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


def with_code() -> dict[str, str]:
    """The environment of a process that imports this checkout."""
    return os.environ | {"PYTHONPATH": CODE}


def answer_of(script: str, *arguments: str, cwd: Path, timeout: float) -> Any:
    """Run a script of `tests/`, outside of any Ray; the JSON in the last line that it prints."""
    environment = {name: value for name, value in with_code().items() if not name.startswith("RAY_ADDRESS")}
    command = [sys.executable, str(ROOT / "tests" / script), *arguments]
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


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

"""Every file of `tests/benchmarks/` without a leading underscore runs by `make bench-NAME`, at its smallest size.

At this size the figures mean nothing, so none is checked: only that all parts ran to the last line.
"""

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, with_code

BENCHMARKS = sorted(file.stem.replace("_", "-") for file in (ROOT / "tests" / "benchmarks").glob("[a-z]*.py"))
MARK = pytest.mark.slow
TIMEOUT_SECONDS = 900
"""Of one benchmark. On two quiet cores the slowest takes about a minute."""


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PRECTR_BENCH_DIR of all benchmarks: what several of them need is made once."""
    return tmp_path_factory.mktemp("benchmarks")


def test_benchmarks_are_found() -> None:
    assert "samples" in BENCHMARKS


@MARK
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_runs_and_ends_with_its_ratio(name: str, scratch: Path) -> None:
    # The checkout's environment is set up already: these tests run in it.
    command = ["make", "--no-print-directory", "--old-file=setup", f"VENV={sys.prefix}"]
    command += [f"bench-{name}", "BENCH_OPTIONS=--smallest"]
    environment = {key: value for key, value in with_code().items() if not key.startswith("RAY_ADDRESS")}
    environment |= {"PRECTR_BENCH_DIR": str(scratch)}
    code, output, messages = _run(command, environment)
    assert code == 0, messages[-3000:]
    result = json.loads(output.strip().splitlines()[-1])
    first, ratio = next(iter(result.items()))
    assert "ratio" in first, f"the last line begins with '{first}', not with a ratio"
    assert math.isfinite(ratio)
    assert result["size"].startswith("smallest")


def _run(command: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
    """Exit code, output and messages; whatever it started is ended if it takes too long."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    try:
        output, messages = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGINT)  # a benchmark ends the servers that it started
            process.communicate(timeout=60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, output, messages

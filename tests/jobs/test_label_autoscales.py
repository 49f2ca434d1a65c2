"""A teacher group scales from zero with the work that waits, and back; one that cannot start fails the run in time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tests.jobs.labelling_workspace import write_tables

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
QUERIES = 150


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("autoscaled")
    write_tables(folder / "tables", QUERIES)
    return folder


@pytest.fixture(scope="module")
def seen(workspace: Path) -> dict[str, dict]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_ADDRESS")}
    environment["PYTHONPATH"] = f"{ROOT}:{ROOT / 'platform'}"
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/jobs/autoscale_run.py"), "tables", "out"],
        cwd=workspace,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.timeout(300)
def test_machines_come_with_the_work_and_go_when_it_is_done(workspace: Path, seen: dict[str, dict]) -> None:
    run = seen["teacher"]
    assert run["failure"]["text"] == ""
    counts = [count for _, count in run["machines"]]
    assert counts[:3] == [0, 1, 2] and max(counts) == 2 and counts[-1] == 0, run["machines"]
    second_machine = run["machines"][2][0]
    assert second_machine > run["first_question"], "the second machine was wanted by waiting questions, not by a start"
    assert run["most_under_way"] == 8, "two replicas asked at a time, four questions each"
    labels = pl.read_parquet(workspace / "out" / "teacher" / "labels" / "labels.parquet")
    assert set(run["times_asked"]) == {1}, "no question is paid for twice"
    assert len(run["times_asked"]) == labels["key"].n_unique() == len(labels) > QUERIES


@pytest.mark.timeout(300)
def test_a_group_that_cannot_start_ends_the_run_after_the_wait_with_a_word_on_it(seen: dict[str, dict]) -> None:
    run = seen["nowhere"]
    assert run["failure"]["type"] == "PrectrError", run["failure"]
    assert "wait_seconds" in run["failure"]["text"] and "nowhere" in run["failure"]["text"]
    assert 8 <= run["finished"] < 40
    assert run["machines"] == [[0.0, 0]] and not run["times_asked"], "no machine was started for nothing"

"""A teacher group scales from zero with the work that waits, and back; one that cannot start fails the run in time."""

from pathlib import Path

import polars as pl
import pytest

from tests.jobs.labelling_workspace import write_tables
from tests.processes import answer_of

pytestmark = pytest.mark.faults
QUERIES = 150


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("autoscaled")
    write_tables(folder / "tables", QUERIES)
    return folder


@pytest.fixture(scope="module")
def seen(workspace: Path) -> dict[str, dict]:
    found: dict[str, dict] = answer_of("jobs/autoscale_run.py", "tables", "out", cwd=workspace, timeout=280)
    return found


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

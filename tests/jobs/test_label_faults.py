"""Labelling under faults, each a real one: killed drivers, a failing HTTP server, a full disk, two runs at once.

The teacher is a real HTTP server that notes every question it was asked, so that a question paid for twice is seen.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import polars as pl
import psutil
import pytest

from jobs import label
from prectr.core.errors import PrectrError
from prectr.labelling.config import LabelConfig, SelectionConfig
from prectr.labelling.ledger import LabelLedger
from prectr.labelling.prompt import load_prompt
from tests.jobs.labelling_workspace import write_tables
from tests.openai_server import OpenAiServer, Status
from tests.processes import end_agents

QUERIES = 300
"""Twice as many pairs, of which those judged for training are not asked."""


class SlowServer(OpenAiServer):
    """Answers after a while, as a teacher does; fails on prompts that hold a word."""

    def __init__(self, seconds: float = 0.0, poison: str = "\0", fault: Status | None = None):
        super().__init__(seconds=seconds)
        self.poison, self.fault = poison, fault

    def next_fault(self, asked):
        found = super().next_fault(asked)
        return self.fault if self.poison in asked.prompt else found

    def asked(self) -> Counter:
        """How often each prompt of a pair was asked; the probe's own is none."""
        return Counter(question.prompt for question in self.questions if "Query: query " in question.prompt)


@pytest.fixture
def tables(tmp_path):
    write_tables(tmp_path / "tables", QUERIES)
    return tmp_path / "tables"


SETTINGS = {"shard_rows": 10, "batch_size": 5, "repeat_sample": 0, "http": {"at_once": 4}}


def run(tables: Path, server: OpenAiServer, out: str = "labels", **options):
    config = LabelConfig(**(SETTINGS | options.pop("config", {})))
    return label.run(
        tables=tables,
        teacher=server.url,
        out=tables.parent / out,
        config=config,
        selection=SelectionConfig(budget=QUERIES),
        **options,
    ).manifest


def start(tables: Path, server: OpenAiServer, out: str = "labels") -> subprocess.Popen:
    """The same run by the command line, in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    settings = [
        f"selection.budget={QUERIES}",
        "label.shard_rows=10",
        "label.batch_size=5",
        "label.repeat_sample=0",
        "label.http.at_once=4",
        "ray.num_cpus=4",
        "ray.object_store_gib=0.2",
    ]
    command = [
        *(sys.executable, "-m", "jobs", "label", "--tables", str(tables), "--teacher", server.url),
        *("--out", str(tables.parent / out)),
        *(word for setting in settings for word in ("--set", setting)),
    ]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)


def stored(tables: Path) -> pl.DataFrame:
    """Every row of every shard, not made distinct."""
    shards = [
        shard
        for context in LabelLedger(tables.parent / "label-ledger").contexts()
        for shard in context.shards("labels")
    ]
    return pl.concat([pl.DataFrame(schema={"key": pl.String, "query": pl.String, "title": pl.String})] + [
        pl.read_parquet(shard, columns=["key", "query", "title"]) for shard in shards
    ])  # fmt: skip


def prompts_of(rows: pl.DataFrame) -> set[str]:
    return set(load_prompt("relevance_v1").render(rows.select("query", "title")))


@pytest.mark.faults
def test_killed_five_times_every_pair_is_labelled_once_and_no_committed_one_is_asked_again(tables):
    moments = random.Random(11)
    with SlowServer(seconds=0.02) as server:
        for _ in range(5):
            committed = stored(tables)
            server.questions.clear()
            started = start(tables, server)
            # Some questions after the start, or soon after Ray began to start: any moment will do.
            wanted, deadline = moments.randrange(0, 45), time.monotonic() + 90
            while len(server.asked()) < wanted and time.monotonic() < deadline and started.poll() is None:
                time.sleep(0.01)
            time.sleep(moments.random() * (0.5 if wanted else 6.0))
            children = psutil.Process(started.pid).children(recursive=True)
            started.send_signal(signal.SIGKILL)
            started.wait()
            started.stderr.close()
            end_agents(children)
            assert not set(server.asked()) & prompts_of(committed)
            assert not (tables.parent / "labels").exists()
        before = stored(tables)
        assert 0 < len(before) < QUERIES
        server.questions.clear()
        finished = start(tables, server)
        assert finished.wait(timeout=180) == 0, finished.stderr.read()
        finished.stderr.close()
        assert not set(server.asked()) & prompts_of(before)
    labels, rows = pl.read_parquet(tables.parent / "labels" / "labels.parquet"), stored(tables)
    assert len(labels) == QUERIES == labels.select("query", "item_id").n_unique()
    assert len(rows) == rows["key"].n_unique() == QUERIES


def test_two_runs_at_once_ask_every_question_once(tables):
    with SlowServer(seconds=0.02) as server:
        both = [start(tables, server, out) for out in ("one", "two")]
        messages = [started.communicate(timeout=240)[1] for started in both]
        assert [started.returncode for started in both] == [0, 0], messages
        assert set(server.asked().values()) == {1} and len(server.asked()) == QUERIES
    one, two = (pl.read_parquet(tables.parent / out / "labels.parquet") for out in ("one", "two"))
    assert one.equals(two) and len(one) == QUERIES
    assert any("waiting for process" in message for message in messages)


def test_bad_rows_carry_their_reason_and_are_asked_again_only_when_told(tables, ray_local):
    with SlowServer(poison="query 7\n", fault=Status(400, '{"error": {"message": "prompt is too long"}}')) as server:
        first = run(tables, server)
        errors = pl.read_parquet(tables.parent / "labels" / "errors.parquet")
        assert first["rows"]["errors"] == len(errors) == 1
        assert errors["query"].to_list() == ["query 7"] and "400" in errors["error"][0]
        assert "prompt is too long" in errors["error"][0]
        server.questions.clear()
        again = run(tables, server, force=True)
        assert not server.asked() and again["rows"]["errors"] == 1
        server.poison = "\0"
        mended = run(tables, server, retry_errors=True)
        assert sum(server.asked().values()) == 1
        assert (mended["rows"]["errors"], mended["rows"]["labels"]) == (0, QUERIES)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Status(500), r"HTTP 500.*\(2 tries\)"),
        (Status(429, headers={"Retry-After": "0"}), r"HTTP 429.*\(2 tries\)"),
        (Status(200, "<html>no"), "JSON"),
        (Status(200, '{"error": {"code": 429}}'), r"HTTP 200 with error 429.*\(2 tries\)"),
    ],
)
def test_a_server_that_fails_for_everything_stops_the_run_early_and_a_retry_finishes_it(tables, ray_local, fault, told):
    config = {"http": {"at_once": 4, "retries": 1, "first_wait_seconds": 0.01}}
    with SlowServer(poison="Query: query ", fault=fault) as server:
        with pytest.raises(PrectrError, match=told) as failed:
            run(tables, server, config=config)
        assert "--retry-errors" in str(failed.value)
        assert len(server.asked()) < QUERIES, "a run that must fail is stopped, not paid for to its end"
        assert not (tables.parent / "labels").exists()
        server.poison = "\0"
        assert run(tables, server, config=config, retry_errors=True)["rows"]["labels"] == QUERIES


@pytest.mark.parametrize("by_signal", [True, False])
def test_all_answers_that_came_are_kept_when_a_run_stops_and_none_is_asked_again(tables, ray_local, by_signal):
    """One block with all questions, and shards that never fill: nothing is committed before the stop."""
    config = {"batch_size": 10_000 if by_signal else 50, "shard_rows": 10_000, "http": {"at_once": 4}}
    poison, fault = "\0" if by_signal else "query 1", Status(400, '{"error": {"message": "no"}}')
    with SlowServer(seconds=0.02, poison=poison, fault=fault) as server:

        def interrupt():
            while len(server.asked()) < 20:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        if by_signal:
            threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt if by_signal else PrectrError):
            run(tables, server, config=config)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        asked = set(server.asked())
        answered = {prompt for prompt in asked if poison not in prompt}
        assert prompts_of(stored(tables)) == answered and 0 < len(asked) < QUERIES
        server.questions.clear()
        server.poison = "\0"
        assert run(tables, server, config=config, retry_errors=True)["rows"]["labels"] == QUERIES
        assert not set(server.asked()) & answered and set(server.asked().values()) == {1}


def test_a_disk_that_fills_up_in_a_commit_keeps_what_was_committed(tables, ray_local):
    mount, disk = shutil.which("mount"), tables.parent / "small"
    disk.mkdir()
    made = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=180k", "prectr-test", str(disk)], check=False)
    if not made or made.returncode:
        pytest.skip("cannot mount a small tmpfs")
    try:
        with SlowServer() as server:
            with pytest.raises(PrectrError, match=r"the disk is full; .* answers could not be kept"):
                run(tables, server, config={"ledger": disk / "ledger"})
            kept = [file for file in (disk / "ledger").rglob("*.parquet") if not file.name.startswith(".")]
            rows = pl.concat([pl.read_parquet(file) for file in kept])
            assert 0 < len(rows) < QUERIES
            assert not list((disk / "ledger").rglob(".*.part")), "half a shard"
            server.questions.clear()
            shutil.copytree(disk / "ledger", tables.parent / "label-ledger")
            finished = run(tables, server)
            assert finished["rows"]["labels"] == QUERIES
            assert not set(server.asked()) & prompts_of(rows)
    finally:
        subprocess.run(["umount", str(disk)], check=True)

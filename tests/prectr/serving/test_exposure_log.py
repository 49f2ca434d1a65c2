"""The exposure log's files: who may read them, how long they stay, what a broken disk costs."""

import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from prectr.contracts.protocol import Event, ShownItem
from prectr.serving import exposures
from prectr.serving.exposures import ExposureLog, delete_old

EVENT = Event(request_id="r", user_id="u", query="q", shown=[ShownItem(item_id="i", position=1)])
NEVER = 1e6
"""Seconds between writes that no test waits for."""


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_only_the_servers_user_may_read_the_log(tmp_path: Path) -> None:
    before = os.umask(0)  # the widest: it takes nothing away
    try:
        log = ExposureLog(tmp_path / "parent" / "log", NEVER)
        log.add_events([EVENT], 1.8e9)
        log.close()
    finally:
        os.umask(before)
    (file,) = (tmp_path / "parent" / "log").rglob("*.parquet")
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.stat().st_mode & 0o777 for path in (file.parent, file.parent.parent)] == [0o700, 0o700]
    assert pl.read_parquet(file)["user_id"].to_list() == ["u"]


def test_a_directory_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log").chmod(0o750)
    ExposureLog(tmp_path / "log", NEVER).close()
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o750


def _file(folder: Path, age: timedelta, suffix: str = ".parquet") -> Path:
    file = folder / f"{datetime.now(UTC) - age:%Y%m%dT%H%M%S}-{'ab' * 16}{suffix}"
    file.write_bytes(b"")
    return file


def test_old_files_are_deleted_younger_and_foreign_ones_stay(tmp_path: Path) -> None:
    ExposureLog(tmp_path, NEVER).close()
    events = tmp_path / "events"
    old, unfinished = _file(events, timedelta(days=31)), _file(tmp_path / "scored", timedelta(days=31))
    unfinished = unfinished.rename(unfinished.with_name(f".{unfinished.name}"))
    kept = [
        _file(events, timedelta(days=29)),
        _file(events, timedelta(days=31), ".csv"),
        _file(tmp_path, timedelta(31)),
    ]
    foreign = events / "20200101T000000-export.parquet"
    foreign.write_bytes(b"")
    ExposureLog(tmp_path, NEVER).close()
    assert old.exists(), "without the setting all files stay"
    log = ExposureLog(tmp_path, 0.01, days=30)
    _until(lambda: not old.exists() and not unfinished.exists())
    log.close()
    assert all(file.exists() for file in [*kept, foreign])


def test_the_age_is_that_of_the_name(tmp_path: Path) -> None:
    ExposureLog(tmp_path, NEVER).close()
    file = _file(tmp_path / "events", timedelta(0))
    delete_old(tmp_path, 1, datetime.now(UTC) + timedelta(hours=23))
    assert file.exists()
    delete_old(tmp_path, 1, datetime.now(UTC) + timedelta(hours=25))
    assert not file.exists()


def test_a_broken_disk_is_counted_and_reported_once_a_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposures, "MOST_ROWS", 3)
    monkeypatch.setattr(exposures, "FLUSH_ROWS", 2)
    log = ExposureLog(tmp_path / "log", NEVER)
    (tmp_path / "log" / "events").rename(tmp_path / "gone")
    with caplog.at_level(logging.WARNING, "ray.serve"):
        log.add_events([EVENT], 1.8e9)
        log.flush()
        for _ in range(4):
            log.add_events([EVENT], 1.8e9)  # full, but a disk that fails is not tried at every row
        log.flush()
    assert (log.failures, log.dropped) == (2, 2)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "the exposure log cannot be written, its rows stay in memory"
    ]
    (tmp_path / "gone").rename(tmp_path / "log" / "events")
    log.close()
    assert pl.read_parquet(tmp_path / "log" / "events" / "*.parquet").height == 3

"""The exposure log: assignments, scored lists, shown lists and clicks, as Parquet files.

    LOG/assignment/    user_id, variant, ts: once per user, variant and replica
    LOG/scored/        request_id, user_id, ts, query, variant, model, version, shadow, item_id, rank, score
    LOG/events/        columns of the canonical impressions, and told (time of the event's arrival)

`analyze-experiment --exposures LOG --assignment LOG/assignment` reads it. A list that was sent twice (again, with later
clicks) is in the log twice; `prectr.data.exposure_log.impressions` merges its rows. Files are written atomically. A
killed replica loses the rows of the last `log_flush_seconds` at most. The log names users and their queries, so only
the server's own user may read it: files have mode 0600, and the directories that it creates 0700.
"""

import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from prectr.contracts.protocol import Event, ScoreResponse
from prectr.data.exposure_log import TABLES

FLUSH_ROWS = 20_000
"""Rows of a table in memory that start a write."""
MOST_ROWS = 500_000
"""Most rows of a table in memory. If the disk fails, further rows are dropped and counted, so that memory lasts."""
_REMEMBERED_USERS = 1_000_000
_CLEAN_SECONDS = 3600.0
"""Seconds between deletions of old files."""
_WARN_SECONDS = 60.0
"""Seconds between two warnings about failed writes."""
_FILE = re.compile(r"\.?(\d{8}T\d{6})-[0-9a-f]{32}\.parquet")
"""Name of a file of the log; with the leading dot, one that a killed server left unfinished."""
_TIME = "%Y%m%dT%H%M%S"

logger = logging.getLogger("ray.serve")


class ExposureLog:
    """Collects rows and writes them every few seconds from a background thread.

    Args:
        folder: directory of the log.
        flush_seconds: seconds between writes.
        days: age in days after which files are deleted, at most once an hour; None: never.

    Attributes:
        dropped: number of rows that were dropped because memory was full.
        failures: number of failed writes. The rows of a failed write stay in memory for the next one.
        problem: message of the last failed write; empty without one.
    """

    def __init__(self, folder: Path, flush_seconds: float, days: int | None = None) -> None:
        self._folder, self._flush_seconds, self._days = folder, flush_seconds, days
        self._rows: dict[str, list[tuple[object, ...]]] = {name: [] for name in TABLES}
        self._assignments: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._wake, self._closed = threading.Event(), False
        self.dropped, self.failures, self.problem = 0, 0, ""
        self._failing, self._warned = False, -_WARN_SECONDS
        for path in (folder, *(folder / name for name in TABLES)):
            _make_private(path)
        self._thread = threading.Thread(target=self._flush_periodically, name="exposure-log", daemon=True)
        self._thread.start()

    def add_scored(self, user_id: str, query: str, response: ScoreResponse, ts: float, shadow: bool = False) -> None:
        """Add a response and the assignment of its user; `ts` is the request's time in seconds since 1970."""
        moment = datetime.fromtimestamp(ts, UTC)
        head = (response.request_id, user_id, moment, query, response.variant, response.model, response.version, shadow)
        self._add("scored", [(*head, entry.item_id, entry.rank, entry.score) for entry in response.results])
        assignment = (user_id, response.variant or response.model)
        if not shadow and response.variant and assignment not in self._assignments:
            if len(self._assignments) >= _REMEMBERED_USERS:
                self._assignments.clear()
            self._assignments.add(assignment)
            self._add("assignment", [(*assignment, moment)])

    def add_events(self, events: Sequence[Event], now: float) -> None:
        """Add shown lists that arrived at `now`, in seconds since 1970."""
        arrival = datetime.fromtimestamp(now, UTC)
        rows = [
            (
                event.request_id,
                event.user_id,
                datetime.fromtimestamp(now if event.ts is None else event.ts, UTC),
                event.query,
                item.item_id,
                item.position,
                item.clicked,
                item.purchased,
                item.price,
                arrival,
            )
            for event in events
            for item in event.shown
        ]
        self._add("events", rows)

    def flush(self) -> None:
        """Write all rows in memory."""
        with self._lock:
            tables = self._rows
            self._rows = {name: [] for name in TABLES}
        for name, rows in tables.items():
            if not rows:
                continue
            frame = pl.DataFrame(rows, schema=TABLES[name], orient="row")
            file = self._folder / name / f"{time.strftime(_TIME, time.gmtime())}-{uuid.uuid4().hex}.parquet"
            staging = file.with_name(f".{file.name}")
            try:
                with os.fdopen(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                    os.fchmod(stream.fileno(), 0o600)  # whatever the umask
                    frame.write_parquet(stream)
                os.replace(staging, file)
                self._failing = False
            except (OSError, pl.exceptions.PolarsError) as error:
                with suppress(OSError):
                    staging.unlink(missing_ok=True)
                self._report_failure(f"{file.parent}: {error}")
                self._add(name, rows)  # the next flush tries again

    def close(self) -> None:
        """Write all rows in memory and end the thread."""
        self._closed = True
        self._wake.set()
        self._thread.join()
        self.flush()

    def _add(self, name: str, rows: Sequence[tuple[object, ...]]) -> None:
        with self._lock:
            table = self._rows[name]
            room = MOST_ROWS - len(table)
            table.extend(rows[:room])
            self.dropped += max(0, len(rows) - room)
            full = len(table) >= FLUSH_ROWS and not self._failing  # a broken disk is tried once a period
        if full:
            self._wake.set()

    def _report_failure(self, problem: str) -> None:
        self.failures += 1
        self._failing, self.problem = True, problem
        if time.monotonic() - self._warned >= _WARN_SECONDS:
            self._warned = time.monotonic()
            logger.warning("the exposure log cannot be written, its rows stay in memory: %s", problem)

    def _flush_periodically(self) -> None:
        cleaned = -_CLEAN_SECONDS
        while not self._closed:
            self._wake.wait(self._flush_seconds)
            self._wake.clear()
            self.flush()
            if self._days is not None and time.monotonic() - cleaned >= _CLEAN_SECONDS:
                cleaned = time.monotonic()
                delete_old(self._folder, self._days, datetime.now(UTC))


def delete_old(folder: Path, days: int, now: datetime) -> None:
    """Delete files of a log that are older than `days` by the time in their names; other files stay."""
    for name in TABLES:
        for file in (folder / name).glob("*"):
            match = _FILE.fullmatch(file.name)
            if match and now - datetime.strptime(match[1], _TIME).replace(tzinfo=UTC) > timedelta(days=days):
                with suppress(OSError):  # another replica may have deleted it
                    file.unlink(missing_ok=True)


def _make_private(folder: Path) -> None:
    """Create a directory that only the server's user may read; an existing one keeps its mode."""
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        return
    folder.chmod(0o700)  # whatever the umask

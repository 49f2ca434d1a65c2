"""The exposure log: who was assigned what, what was scored, what was shown and clicked, as Parquet.

    LOG/assignment/    user_id, variant, ts: once a user, variant and replica
    LOG/scored/        request_id, user_id, ts, query, variant, model, version, shadow, item_id, rank, score
    LOG/events/        the columns of the canonical impressions, and told (when it was told)

`analyze-experiment --exposures LOG --assignment LOG/assignment` reads it. A list that was told twice (again, with the
clicks that came later) stands there twice; `impressions` makes one of it. Files appear whole. What a replica that is
killed had not written yet is lost: `log_flush_seconds` at most.
"""

import os
import threading
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from prectr.contracts.protocol import Event, ScoreResponse
from prectr.data.exposure_log import TABLES

FLUSH_ROWS = 20_000
MOST_ROWS = 500_000
"""In memory; where the disk does not take them, more are dropped and counted rather than fill the memory."""
_REMEMBERED_USERS = 1_000_000


class ExposureLog:
    """Collects rows and writes them every few seconds from a thread of its own.

    Attributes:
        dropped: rows that could not be kept.
        problem: what the disk last said, if it refused.
    """

    def __init__(self, folder: Path, flush_seconds: float) -> None:
        self._folder, self._flush_seconds = folder, flush_seconds
        self._rows: dict[str, list[tuple[object, ...]]] = {name: [] for name in TABLES}
        self._assigned: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._wake, self._closed = threading.Event(), False
        self.dropped, self.problem = 0, ""
        for name in TABLES:
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._write_along, name="exposure-log", daemon=True)
        self._thread.start()

    def scored(self, user_id: str, query: str, response: ScoreResponse, ts: float, shadow: bool = False) -> None:
        """A response, and the assignment of its user."""
        moment = datetime.fromtimestamp(ts, UTC)
        head = (response.request_id, user_id, moment, query, response.variant, response.model, response.version, shadow)
        self._add("scored", [(*head, entry.item_id, entry.rank, entry.score) for entry in response.results])
        assigned = (user_id, response.variant or response.model)
        if not shadow and response.variant and assigned not in self._assigned:
            if len(self._assigned) >= _REMEMBERED_USERS:
                self._assigned.clear()
            self._assigned.add(assigned)
            self._add("assignment", [(*assigned, moment)])

    def told(self, events: Sequence[Event], now: float) -> None:
        """Shown lists."""
        told = datetime.fromtimestamp(now, UTC)
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
                told,
            )
            for event in events
            for item in event.shown
        ]
        self._add("events", rows)

    def flush(self) -> None:
        """Write what there is."""
        with self._lock:
            taken = self._rows
            self._rows = {name: [] for name in TABLES}
        for name, rows in taken.items():
            if not rows:
                continue
            frame = pl.DataFrame(rows, schema=TABLES[name], orient="row")
            file = self._folder / name / f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex}.parquet"
            aside = file.with_name(f".{file.name}")
            try:
                frame.write_parquet(aside)
                os.replace(aside, file)
            except (OSError, pl.exceptions.PolarsError) as error:
                aside.unlink(missing_ok=True)
                self.problem = f"{file.parent}: {error}"
                self._add(name, rows)  # for the next time

    def close(self) -> None:
        """Write what there is, and end the thread."""
        self._closed = True
        self._wake.set()
        self._thread.join()
        self.flush()

    def _add(self, name: str, rows: Sequence[tuple[object, ...]]) -> None:
        with self._lock:
            kept = self._rows[name]
            room = MOST_ROWS - len(kept)
            kept.extend(rows[:room])
            self.dropped += max(0, len(rows) - room)
            full = len(kept) >= FLUSH_ROWS
        if full:
            self._wake.set()

    def _write_along(self) -> None:
        while not self._closed:
            self._wake.wait(self._flush_seconds)
            self._wake.clear()
            self.flush()

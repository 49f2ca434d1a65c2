"""The three passes over the log, each the work of one task on one part of a day."""

from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prectr.core.coding import distinct, find_codes
from prectr.core.errors import PrectrError
from prectr.core.parquet import read_table, write_part
from prectr.data.parts import Part
from prectr.preferences import partials
from prectr.preferences.days import day_folder, kept_relevance, relevance_hash
from prectr.preferences.examination import examination_counts
from prectr.preferences.fit import PreferenceModel, draw_users
from prectr.preferences.partials import Centres, Frames
from prectr.preferences.shown import ShownReader, ShownRows, explored
from prectr.preferences.tolerance import LATTICE, LogLikelihoodTable, log_likelihood_table

SAMPLE_ROWS = 5_000
"""Every so manieth key of a sorted partial is told the driver, which cuts the key space by them."""
KEYS_OF = {"plain_user": "user_id", "pair": "query", "item": "item_id"}


@dataclass(frozen=True)
class Pass:
    """What all tasks of a pass share; small, because it is sent with every task."""

    out: Path
    """The artifact being built."""
    reader: Any
    """The `ShownReader`, or its reference in the object store."""
    model: PreferenceModel | None = None
    behaviours_per_query: int = 0
    alternate: bool = True

    def open_reader(self) -> ShownReader:
        """The reader."""
        return fetch_reader(self.reader)

    @property
    def table(self) -> LogLikelihoodTable:
        """The fitted click curve."""
        assert self.model is not None
        return log_likelihood_table(self.model.click, self.model.examination.exponent)


def fetch_reader(reader: Any) -> ShownReader:
    """The `ShownReader` behind a reference; its arrays are mapped from the object store, once a process."""
    return reader if isinstance(reader, ShownReader) else _fetched(reader)


@lru_cache(maxsize=1)
def _fetched(reference: Any) -> ShownReader:
    import ray

    reader: ShownReader = ray.get(reference)
    return reader


def fit_pass(part: Part, shared: Pass, share: float) -> None:
    """Count what the parameters are fitted from, and draw rows of a share of the users; writes `.fit/`."""
    reader = shared.open_reader()
    rows = reader.read(part, ["policy"])
    level = reader.index.level[rows.place]
    drawn = np.flatnonzero(draw_users(rows.user.keys, share)[rows.user.codes])
    category = reader.catalogue.category[rows.item_place]
    shown = pl.DataFrame({"query": rows.query.codes, "category": category}).group_by("query", "category").len("shown")
    made = {
        "examination": examination_counts(level, rows.frame["position"].to_numpy(), rows.clicked, explored(rows.frame)),
        "category": shown.with_columns(
            rows.query.keys.gather(shown["query"]), reader.catalogue.categories.gather(shown["category"])
        ),
        "sample": pl.DataFrame(
            [
                rows.user.keys.gather(rows.user.codes[drawn]).alias("user_id"),
                rows.query.keys.gather(rows.query.codes[drawn]).alias("query"),
                rows.frame["position"].gather(drawn),
                rows.frame["clicked"].gather(drawn),
                pl.Series("expected", reader.index.expected[rows.place[drawn]] / LATTICE),
            ]
        ),
    }
    for name, frame in made.items():
        write_part(shared.out / ".fit" / f"date={part.day}" / name, part.number, frame)


@dataclass(frozen=True)
class Passed:
    """What a task tells the driver of its part.

    Attributes:
        keys: every SAMPLE_ROWS-th key of the sorted partials, by key column.
        relevance: `relevance_hash` of the pairs shown.
    """

    keys: dict[str, list[str]]
    relevance: int = 0


def plain_pass(part: Part, shared: Pass) -> Passed:
    """Tolerances before either side is corrected for the other."""
    reader = shared.open_reader()
    rows = reader.read(part, partials.PLAIN_COLUMNS)
    return Passed(_write(shared.out, part, partials.plain_partials(rows, reader, shared.table)))


def main_pass(part: Part, shared: Pass) -> Passed:
    """All partial aggregates."""
    reader = shared.open_reader()
    rows = reader.read(part, partials.COLUMNS)
    _refuse_repeats(rows, part)
    centres = known_centres(rows, day_centres(shared.out, part.day), shared.alternate)
    made = partials.partials(rows, reader, shared.table, centres, shared.behaviours_per_query)
    shown = distinct(rows.place, len(reader.index.key))
    return Passed(_write(shared.out, part, made), relevance_hash(reader, shown))


def relevance_of_day(day: date, artifact: Path, shared: Pass) -> str:
    """What `KeptDay.relevance` of a kept day would be now."""
    return kept_relevance(artifact, day, shared.open_reader())


def day_centres(artifact: Path, day: date) -> dict[str, pl.DataFrame]:
    """The rows of `centres/user` and `centres/query` of one day, sorted by key."""
    return {
        kind: read_table(artifact / "centres" / kind, [day]).sort(key)
        for kind, key in (("user", "user_id"), ("query", "query"))
    }


def known_centres(rows: ShownRows, centres: dict[str, pl.DataFrame], alternate: bool) -> Centres:
    """Look up what was known of the rows' users and queries; without `alternate` nothing is corrected."""

    def looked_up(keys: pl.Series, known: pl.Series, values: pl.Series) -> np.ndarray:
        place = find_codes(keys, known)
        return np.where(place < 0, 0, values.to_numpy()[place]) if len(values) else np.zeros(len(keys), np.int16)

    user, query = centres["user"], centres["query"]
    found = Centres(
        user=looked_up(rows.user.keys, user["user_id"], user["shift"]).astype(np.int16),
        query=looked_up(rows.query.keys, query["query"], query["shift"]).astype(np.int16),
        requests=looked_up(rows.user.keys, user["user_id"], user["requests"]),
    )
    return found if alternate else Centres(np.zeros_like(found.user), np.zeros_like(found.query), found.requests)


def _refuse_repeats(rows: ShownRows, part: Part) -> None:
    """One impression twice in a part: a day that is there twice, or a log that nobody validated."""
    key = np.sort(rows.request.codes.astype(np.int64) * max(len(rows.item), 1) + rows.item.codes)
    repeats = int((key[1:] == key[:-1]).sum())
    if repeats:
        files = ", ".join(str(piece.file) for piece in part.slices)
        raise PrectrError(
            f"{files}: {repeats:,} impressions (request_id, item_id) stand there twice; is the day there twice? "
            "Run `prectr validate` on the log: it sets repeats aside with their file and row."
        )


def _write(out: Path, part: Part, frames: Frames) -> dict[str, list[str]]:
    for kind, frame in frames.items():
        write_part(day_folder(out, part.day) / kind, part.number, frame)
    return {
        KEYS_OF[kind]: frame[KEYS_OF[kind]].gather_every(SAMPLE_ROWS).to_list()
        for kind, frame in frames.items()
        if kind in KEYS_OF
    }

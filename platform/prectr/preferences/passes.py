"""The three passes over the log. Each function is the work of one task on one part of a day.

Tasks write Parquet parts; only keys and hashes return to the driver.
"""

import shutil
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prectr.core.coding import Coded, distinct, find_codes
from prectr.core.errors import PrectrError, listed
from prectr.core.parquet import read_table, write_part
from prectr.data.parts import Part
from prectr.preferences import partials
from prectr.preferences.days import day_folder, kept_relevance, relevance_hash
from prectr.preferences.examination import examination_counts
from prectr.preferences.fit import FitSample, PreferenceModel, draw_keys
from prectr.preferences.partials import Centres, Frames
from prectr.preferences.shown import ShownReader, ShownRows, explored
from prectr.preferences.tolerance import LATTICE, LogLikelihoodTable, log_likelihood_table

SAMPLE_ROWS = 5_000
"""Tasks report every 5,000th key of a sorted partial; the driver splits the key space by them."""
KEYS_OF = {"plain_user": "user_id", "pair": "query", "item": "item_id"}


@dataclass(frozen=True)
class Pass:
    """Arguments that all tasks of a pass share. It is small, because it is sent with every task."""

    out: Path
    """The artifact being built."""
    reader: Any
    """The `ShownReader`, or its reference in the object store."""
    model: PreferenceModel | None = None
    behaviours_per_query: int = 0
    alternate: bool = True

    def open_reader(self) -> ShownReader:
        """Return the reader; fetch it from the object store if necessary."""
        return fetch_reader(self.reader)

    @property
    def table(self) -> LogLikelihoodTable:
        """The fitted click curve."""
        assert self.model is not None
        return log_likelihood_table(self.model.click, self.model.examination.exponent)


def fetch_reader(reader: Any) -> ShownReader:
    """Return the `ShownReader` behind a reference; each process maps its arrays from the object store once."""
    return reader if isinstance(reader, ShownReader) else _fetch_once(reader)


@lru_cache(maxsize=1)
def _fetch_once(reference: Any) -> ShownReader:
    import ray

    reader: ShownReader = ray.get(reference)
    return reader


def fit_pass(part: Part, shared: Pass, share: float) -> None:
    """Count clicks by level and position and categories by query, and sample users, queries and items; writes `.fit/`.

    Args:
        part: the rows.
        shared: arguments of all tasks.
        share: share of the users, of the queries and of the items that is drawn (`draw_keys`).
    """
    reader = shared.open_reader()
    rows = reader.read(part, ["policy"])
    level = reader.index.level[rows.place]
    category = reader.catalogue.category[rows.item_place]
    shown = pl.DataFrame({"query": rows.query.codes, "category": category}).group_by("query", "category").len("shown")

    def sample(of: Coded, kind: str, *names: str) -> pl.DataFrame:
        """Columns `names`, position and click of the rows of the drawn keys, and how many rows are equal."""
        drawn = np.flatnonzero(draw_keys(of.keys, share, kind)[of.codes])
        columns = {
            "user_id": lambda: rows.user.keys.gather(rows.user.codes[drawn]),
            "query": lambda: rows.query.keys.gather(rows.query.codes[drawn]),
            "item_id": lambda: rows.item.keys.gather(rows.item.codes[drawn]),
            "brand": lambda: reader.catalogue.brand.gather(rows.item_place[drawn]),
            "category": lambda: reader.catalogue.categories.gather(category[drawn]),
            "expected": lambda: pl.Series(reader.index.expected[rows.place[drawn]] / LATTICE),
        }
        clicks = {"position": rows.position[drawn], "clicked": rows.clicked[drawn]}
        frame = pl.DataFrame({name: columns[name]() for name in names} | clicks)
        return frame.group_by(frame.columns).len("rows").sort(frame.columns)

    frames = {
        "examination": examination_counts(level, rows.position, rows.clicked, explored(rows.frame)),
        "category": shown.with_columns(
            rows.query.keys.gather(shown["query"]), reader.catalogue.categories.gather(shown["category"])
        ),
        "users": sample(rows.user, "users", "user_id", "brand", "category", "expected"),
        "queries": sample(rows.query, "queries", "query", "item_id", "expected"),
        "items": sample(rows.item, "items", "item_id"),
    }
    for name, frame in frames.items():
        write_part(shared.out / ".fit" / f"date={part.day}" / name, part.number, frame)


def read_fit(out: Path, share: float) -> tuple[pl.DataFrame, pl.DataFrame, FitSample]:
    """Read and delete what `fit_pass` wrote for all parts: counts by level and position, categories shown, samples."""
    fit = out / ".fit"

    def scan(name: str) -> pl.LazyFrame:
        return pl.scan_parquet(sorted(fit.glob(f"date=*/{name}/*.parquet")), hive_partitioning=False)

    def sample(kind: str, key: str) -> pl.DataFrame:
        """Rows of the keys that are drawn from those of all parts, the same ones however the log was cut."""
        keys = scan(kind).select(key).unique().collect()[key]
        drawn = keys.filter(pl.Series(draw_keys(keys, share, kind)))
        frame = scan(kind).filter(pl.col(key).is_in(drawn.implode())).collect()
        names = [name for name in frame.columns if name != "rows"]
        return frame.group_by(names).agg(pl.col("rows").sum()).sort(names)

    samples = FitSample(sample("users", "user_id"), sample("queries", "query"), sample("items", "item_id"))
    counts, shown = (scan(name).collect() for name in ("examination", "category"))
    shutil.rmtree(fit)
    return counts, shown, samples


@dataclass(frozen=True)
class Passed:
    """What a task returns to the driver.

    Attributes:
        keys: every SAMPLE_ROWS-th key of the sorted partials, by key column.
        relevance: `relevance_hash` of the pairs that the part shows.
    """

    keys: dict[str, list[str]]
    relevance: int = 0


def plain_pass(part: Part, shared: Pass) -> Passed:
    """Write the partials of the first pass, from uncorrected relevance."""
    reader = shared.open_reader()
    rows = reader.read(part, partials.PLAIN_COLUMNS)
    return Passed(_write(shared.out, part, partials.plain_partials(rows, reader, shared.table)))


def main_pass(part: Part, shared: Pass) -> Passed:
    """Write the partials of the second pass, corrected by the tolerances on the morning of the day."""
    reader = shared.open_reader()
    rows = reader.read(part, partials.COLUMNS)
    _refuse_repeats(rows, part)
    centres = known_centres(rows, day_centres(shared.out, part.day), shared.alternate)
    frames = partials.partials(rows, reader, shared.table, centres, shared.behaviours_per_query)
    shown = distinct(rows.place, len(reader.index.key))
    return Passed(_write(shared.out, part, frames), relevance_hash(reader, shown))


def relevance_of_day(day: date, artifact: Path, shared: Pass) -> str:
    """Compute `KeptDay.relevance` of a stored day from the present relevance artifact."""
    return kept_relevance(artifact, day, shared.open_reader())


def day_centres(artifact: Path, day: date) -> dict[str, pl.DataFrame]:
    """Read the rows of `centres/user` and `centres/query` of one day, sorted by key."""
    return {
        kind: read_table(artifact / "centres" / kind, [day]).sort(key)
        for kind, key in (("user", "user_id"), ("query", "query"))
    }


def known_centres(rows: ShownRows, centres: dict[str, pl.DataFrame], alternate: bool) -> Centres:
    """Look up the centres of the rows' users and queries; without `alternate` all shifts are 0."""

    def look_up(keys: pl.Series, stored: pl.Series, values: pl.Series) -> np.ndarray:
        row = find_codes(keys, stored)
        return np.where(row < 0, 0, values.to_numpy()[row]) if len(values) else np.zeros(len(keys), np.int16)

    user, query = centres["user"], centres["query"]
    stored = Centres(
        user=look_up(rows.user.keys, user["user_id"], user["shift"]).astype(np.int16),
        query=look_up(rows.query.keys, query["query"], query["shift"]).astype(np.int16),
        requests=look_up(rows.user.keys, user["user_id"], user["requests"]),
    )
    return stored if alternate else Centres(np.zeros_like(stored.user), np.zeros_like(stored.query), stored.requests)


def _refuse_repeats(rows: ShownRows, part: Part) -> None:
    """Refuse a part that holds an impression twice: the log holds a day twice, or it was not validated."""
    key = np.sort(rows.request.codes.astype(np.int64) * max(len(rows.item), 1) + rows.item.codes)
    repeats = int((key[1:] == key[:-1]).sum())
    if repeats:
        files = listed([piece.file for piece in part.slices], limit=300)
        raise PrectrError(
            f"{files}: {repeats:,} impressions (request_id, item_id) occur more than once; the log may hold the day "
            "twice. Run `prectr validate` on the log: it sets repeats aside with their file and row."
        )


def _write(out: Path, part: Part, frames: Frames) -> dict[str, list[str]]:
    """Write the frames as parts of the day; returns every SAMPLE_ROWS-th key, by key column."""
    for kind, frame in frames.items():
        write_part(day_folder(out, part.day) / kind, part.number, frame)
    return {
        KEYS_OF[kind]: frame[KEYS_OF[kind]].gather_every(SAMPLE_ROWS).to_list()
        for kind, frame in frames.items()
        if kind in KEYS_OF
    }

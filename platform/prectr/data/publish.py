"""Publication of a log as canonical tables: the checks, the quarantine and the requests, for every source.

First each table is read once; rows that are bad by themselves are set aside, and the others are cut into units of
keys (`spill`). Then each unit is settled and written. So neither a file nor a day has to fit into memory.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prectr.contracts.schema import (
    CANDIDATES,
    GRADES,
    IMPRESSIONS,
    ITEMS,
    JUDGMENTS,
    USERS,
    Table,
)
from prectr.core import progress
from prectr.core.artifacts import StageResult, link_or_copy, run_stage
from prectr.core.config import FrozenConfig
from prectr.core.errors import PrectrError
from prectr.data.clocks import far_days, without_far_days
from prectr.data.config import ValidateConfig
from prectr.data.profile import Profile
from prectr.data.reading.ahead import ahead
from prectr.data.reading.bad_rows import FAULT, FILE, RAW, ROW, BadRows, as_json
from prectr.data.reading.reader import Reader
from prectr.data.reading.values import blank_faults
from prectr.data.requests import EQUAL, REUSED, settle
from prectr.data.source import Rows, Source
from prectr.data.spill import Spill, units_of

QUARANTINED = "rows.parquet"
"""File of the bad rows in the quarantine directory."""
SPILL = ".rows-by-key"
"""Directory of temporary files inside the artifact that is being built."""
FEW_ITEMS = 500_000
"""Most items of a catalogue whose ids are looked up in a set that is made for each chunk of rows."""
HINT = "Correct them, or raise validation.max_bad_share."


def publish_source(
    stage: str,
    source: Source,
    path: Path,
    out: Path,
    *,
    config: FrozenConfig,
    validation: ValidateConfig,
    force: bool = False,
    quarantine: Path | None = None,
    truth: Path | None = None,
    profile: Profile | None = None,
) -> StageResult:
    """Publish a source as canonical tables at `out`.

    Args:
        stage: name of the command.
        source: the opened source.
        path: path of the log, for messages.
        out: directory of the artifact.
        config: all settings that decide the result.
        validation: rules and limits for rows.
        force: publish again even if nothing changed.
        quarantine: directory of the bad rows; default: `quarantine/` beside `out`. They are there even if there are too
            many of them and nothing is published.
        truth: a directory `truth/` of simulated tables, which is taken along.
        profile: collects what `prectr validate --report` shows.

    Raises:
        PrectrError: a file cannot be read, a table has no rows or too many bad ones, or no row is clicked.
        UsageError: a file does not exist.
    """
    folder = quarantine or out.parent / "quarantine"

    def build(staging: Path) -> dict[str, Any]:
        source.say()
        try:
            with BadRows(folder / QUARANTINED) as bad:
                if profile is not None:
                    profile.bad = bad
                facts = _Build(source, path, staging, validation, bad, profile).run()
        finally:
            source.tally.say()
            for note in source.notes():
                progress.say(f"  {note}")
            shutil.rmtree(staging / SPILL, ignore_errors=True)
        if truth is not None:
            shutil.copytree(truth, staging / "truth", copy_function=link_or_copy)
        return {
            **facts,
            "simulated": truth is not None,
            "source": source.name,
            "grades": dict(source.grades),
            "lacks": list(source.lacks),
            "assumed": list(source.assumed),
            "left_out": source.tally.left_out,
            "versions_read": dict(source.versions),
            "not_read": [str(file) for file in source.not_read],
            "notes": source.notes(),
        }

    versions = {f"version of {name}": str(version) for name, version in source.versions.items()}
    inputs: dict[str, Path | str] = {"source": source.name, **source.files, **versions}
    return run_stage(stage, out, config=config, inputs=inputs, build=build, force=force)


class _Build:
    """One run: reads the tables of a source and writes them below `staging`."""

    def __init__(
        self,
        source: Source,
        path: Path,
        staging: Path,
        config: ValidateConfig,
        bad: BadRows,
        profile: Profile | None,
    ) -> None:
        self.source, self.path, self.staging, self.config, self.bad = source, path, staging, config, bad
        self.profile = profile
        self.reader = Reader(bad, config)
        self.rows: dict[str, int] = {}
        self.days: Counter[date] = Counter()
        self.items: np.ndarray = np.array([], np.uint64)
        self.facts: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """Write all tables; returns facts for the manifest."""
        for table in (ITEMS, USERS):
            if table.name in self.source.tables:
                self._keyed(table)
        if IMPRESSIONS.name in self.source.tables or CANDIDATES.name in self.source.tables:
            self._dated()
        if JUDGMENTS.name in self.source.tables:
            self._keyed(JUDGMENTS)
        return {
            "rows": self.rows,
            "quarantined": {table: dict(self.bad.reasons.get(table, {})) for table in self.rows},
            "merged": {table: dict(reasons) for table, reasons in self.bad.merged.items() if reasons},
            **self.facts,
        }

    def _spill(self, table: Table, key: str) -> Spill:
        """Read a table: bad rows go to quarantine, good ones to a spill.

        Raises:
            PrectrError: the table has no rows.
        """
        spill = Spill(self.staging / SPILL / table.name, key, self.source.expected.get(table.name))
        self.bad.table = table.name
        for frame in self._counted(table, self.source.tables[table.name]):
            checked = _checked(table, frame, None if table == ITEMS else self.items, self.config)
            good = checked.filter(pl.col(FAULT).is_null()).drop(RAW, strict=False)
            if good.height < checked.height:
                self.bad.add(table.name, checked.filter(pl.col(FAULT).is_not_null()))
            if table.dated:
                for day, rows in good.group_by(pl.col("ts").dt.date()).len().iter_rows():
                    self.days[day] += rows
            spill.add(good)
        if not self.bad.rows[table.name]:
            left_out = ", ".join(f"{count:,} x {reason}" for reason, count in self.source.tally.left_out.items())
            raise PrectrError(
                f"{self.path}: the table '{table.name}' has no rows"
                + (f" (left out: {left_out}). " if left_out else ". ")
                + ("Leave its files out if you have none." if table.optional else "It cannot be empty.")
            )
        return spill

    def _counted(self, table: Table, read: Rows) -> Iterator[pl.DataFrame]:
        with progress.track(f"read {table.name}", unit="rows") as bar:
            try:
                for frame in read(self.reader):
                    self.bad.rows[table.name] += frame.height
                    bar.advance(frame.height)
                    yield frame
            except pl.exceptions.PolarsError as error:
                raise PrectrError(
                    f"{self.path}: the columns of the table '{table.name}' cannot be converted; one of them has a type "
                    "that holds neither texts nor numbers, such as a list or an object."
                ) from error

    def _keyed(self, table: Table) -> None:
        """Write a table without days: sorted by its key, one row for each."""
        spill = self._spill(table, table.key[-1])
        units = units_of(spill.rows)
        parts: list[Path] = []
        hashes = []
        kept = 0
        for number in range(units):
            rows = spill.unit(number, units)
            if rows is None:
                continue
            good = self._without_repeats(table, rows)
            kept += good.height
            if table == ITEMS:
                hashes.append(good["item_id"].hash(seed=0).to_numpy())
            if self.profile is not None:
                self.profile.add(table.name, good)
            parts.append(self.staging / SPILL / f"{table.name}-{number:04d}.parquet")
            parts[-1].parent.mkdir(exist_ok=True)
            good.write_parquet(parts[-1])
        spill.close()
        if table == ITEMS:
            self.items = np.sort(np.concatenate(hashes)) if hashes else self.items
        self._say(table, kept)
        target = self.staging / f"{table.name}.parquet"
        if len(parts) == 1:
            parts[0].rename(target)
        else:
            pl.scan_parquet(parts, hive_partitioning=False).sink_parquet(target)

    def _without_repeats(self, table: Table, rows: pl.DataFrame) -> pl.DataFrame:
        """One row of each key. Equal rows count once; of others the first by content is good, the others are bad."""
        key = list(table.key)
        rows = _ordered(table, rows)
        if table == JUDGMENTS:
            rows = rows.with_columns(pl.col("grade").cast(pl.Int8))
        if rows.select(key).is_duplicated().any():
            content = [name for name in rows.columns if name not in (*key, FILE, ROW, FAULT)]
            best = [pl.sum_horizontal(pl.col(content).is_null())] if content else []
            best = [-pl.col("grade")] if table == JUDGMENTS else best
            texts = as_json(rows.select(content)) if content else pl.lit("")
            rows = rows.with_columns(texts.alias("__values")).sort(*key, *best, "__values", FILE, ROW)
            equal = pl.struct(*key, "__values").is_first_distinct()
            self.bad.merge(table.name, EQUAL, rows.height - int(rows.select(equal.sum()).item()))
            rows = rows.filter(equal).drop("__values")
            first = pl.struct(key).is_first_distinct()
            reason = pl.lit(f"duplicate ({', '.join(key)}) with other values")
            self.bad.add(table.name, rows.filter(~first).with_columns(reason.alias(FAULT)))
            rows = rows.filter(first)
        return rows.drop(FILE, ROW, FAULT).sort(key)

    def _dated(self) -> None:
        """Write impressions and candidates by day: their requests are the same."""
        tables = [table for table in (IMPRESSIONS, CANDIDATES) if table.name in self.source.tables]
        spills = {table.name: self._spill(table, "request_id") for table in tables}
        far = far_days(self.days, self.config)
        units = units_of(sum(spill.rows for spill in spills.values()))
        kept = dict.fromkeys(spills, 0)
        clicks = renamed = 0
        writing: Future[None] | None = None
        with progress.track("write requests", total=units, unit="parts") as bar, ThreadPoolExecutor(1) as pool:
            for number, frames in enumerate(ahead(self._units(spills, units, far))):
                bar.advance(1)
                if not frames:
                    continue
                settled = settle(frames, self.config.request_minutes)
                renamed += settled.renamed
                for table in tables:
                    rows = settled.tables.get(table.name)
                    if rows is None:
                        continue
                    for reason, count in settled.merged[table.name].items():
                        self.bad.merge(table.name, reason, count)
                    kept[table.name] += rows.height
                    clicks += int(rows["clicked"].sum()) if table == IMPRESSIONS else 0
                    rows = _ordered(table, rows)
                    if self.profile is not None:
                        self.profile.add(table.name, rows)
                    if writing is not None:
                        writing.result()
                    writing = pool.submit(self._write_days, table, rows, number)
            if writing is not None:
                writing.result()
        for table in tables:
            spills[table.name].close()
            self._say(table, kept[table.name])
        if renamed:
            self.facts["request_ids_reused"] = renamed
            progress.say(f"    {renamed:,} x {REUSED}; they got a number: ID~2")
        if IMPRESSIONS in tables:
            self.facts["clicks"] = clicks
            if not clicks and not self.config.allow_no_clicks:
                raise PrectrError(
                    f"{self.path}: none of {kept['impressions']:,} impressions is clicked, so nothing was written. "
                    "Check the column 'clicked' (in a mapping: true_when), or set validation.allow_no_clicks=true."
                )

    def _units(self, spills: dict[str, Spill], units: int, far: set[date]) -> Iterator[dict[str, pl.DataFrame]]:
        """Rows of each unit by table, without those of far days and without tables that have none."""
        for number in range(units):
            read = {name: spill.unit(number, units) for name, spill in spills.items()}
            frames = {
                name: without_far_days(rows, far, name, self.bad).drop(FILE, ROW, FAULT)
                for name, rows in read.items()
                if rows is not None
            }
            yield {name: rows for name, rows in frames.items() if rows.height}

    def _write_days(self, table: Table, rows: pl.DataFrame, number: int) -> None:
        days = rows.with_columns(pl.col("ts").dt.date().alias("__day"))
        for (day,), part in days.partition_by("__day", as_dict=True, include_key=False).items():
            folder = self.staging / table.name / f"date={day}"
            folder.mkdir(parents=True, exist_ok=True)
            part.write_parquet(folder / f"part-{number:04d}.parquet")

    def _say(self, table: Table, kept: int) -> None:
        """Print the counts of a table.

        Raises:
            PrectrError: too many of its rows are bad.
        """
        name = table.name
        self.rows[name] = kept
        progress.say(f"  {name}: {self.bad.rows[name]:,} rows, {self.bad.of_table(name):,} quarantined")
        for reason, count in self.bad.reasons.get(name, Counter()).most_common():
            progress.say(f"    {count:,} x {reason}")
        for reason, count in self.bad.merged.get(name, Counter()).most_common():
            progress.say(f"    {count:,} x {reason}")
        self.bad.require_share(name, self.config.max_bad_share, HINT)


def _ordered(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """Canonical columns in their order, then the others by name: the order of the files' columns is no matter."""
    canonical = [column.name for column in table.columns if column.name in rows.columns]
    return rows.select(*canonical, *sorted(set(rows.columns) - set(canonical)))


def _checked(table: Table, frame: pl.DataFrame, known_items: np.ndarray | None, config: ValidateConfig) -> pl.DataFrame:
    """Rows with the faults that show in a row by itself.

    Args:
        table: the canonical table.
        frame: its rows, as `conform` returned them.
        known_items: sorted hashes of the catalogue's ids; None: not to be checked.
        config: words for null ids.
    """
    rules: list[tuple[pl.Expr, str]] = []
    if "position" in table.required_names:
        rules.append((pl.col("position") < 1, "position is below 1 (positions count from 1)"))
    if table == JUDGMENTS:
        rules.append((~pl.col("grade").is_in(list(GRADES)), "grade is not one of 0, 1, 2, 3"))
    if "propensity" in frame.columns:
        rules.append((~pl.col("propensity").is_between(0, 1, closed="right"), "propensity is not in (0, 1]"))
    if "price" in frame.columns:
        rules.append((~(pl.col("price").is_finite() & (pl.col("price") >= 0)), "price is not a finite number from 0"))
    if table == ITEMS:
        rules.append((pl.col("title").str.strip_chars().str.len_bytes() == 0, "title is empty"))
    if known_items is not None and "item_id" in frame.columns:
        unknown = pl.Series("__unknown", ~_is_known(known_items, frame["item_id"]))
        if unknown.any():
            frame = frame.with_columns(unknown)
            blanks = blank_faults("item_id", frame["item_id"], config)
            rules += [(pl.lit(mask), reason) for mask, reason in blanks]
            rules.append((pl.col("__unknown") & pl.col("item_id").is_not_null(), "item_id is not in items"))
    faults = (pl.when(condition.fill_null(False)).then(pl.lit(reason)) for condition, reason in rules)
    return frame.with_columns(pl.coalesce(FAULT, *faults).alias(FAULT)).drop("__unknown", strict=False)


def _is_known(known: np.ndarray, ids: pl.Series) -> np.ndarray:
    """Whether the hash of each id is among `known` (sorted). An unknown id passes with a chance of items / 2^64."""
    if not len(known):
        return np.zeros(len(ids), bool)
    if len(known) <= FEW_ITEMS:
        return ids.hash(seed=0).is_in(pl.Series(known).implode()).to_numpy()
    hashes = ids.hash(seed=0).to_numpy()
    places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    return np.asarray(known[places] == hashes)

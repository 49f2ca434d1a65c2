"""Publication of an imported source as an artifact, with the checks and the quarantine of `prectr validate`."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from prectr.contracts.schema import TABLES, Table
from prectr.core import progress
from prectr.core.artifacts import StageResult, run_stage
from prectr.core.config import FrozenConfig
from prectr.core.errors import PrectrError
from prectr.data.config import ValidateConfig
from prectr.data.importers.config import ImportConfig
from prectr.data.importers.source import Rows, Source
from prectr.data.validate import write_checked

SPILL = ".rows-by-day"
"""Folder of temporary files inside the artifact that is being built."""


class _Decisions(FrozenConfig):
    """All settings that decide the result of an import; part of the artifact's identity."""

    importing: ImportConfig
    """Settings of the sources."""
    validation: ValidateConfig
    """Limits of validation."""


def import_tables(
    source: Source, path: Path, out: Path, *, config: ImportConfig, validation: ValidateConfig, force: bool = False
) -> StageResult:
    """Publish a source as canonical tables at `out`. Bad rows go to `quarantine/` beside it.

    Raises:
        PrectrError: a file cannot be read, a table has no rows, or it has too many bad rows.
        UsageError: a file does not exist.
    """

    def build(staging: Path) -> dict[str, Any]:
        source.say()
        if "impressions" not in source.tables:
            progress.say("  no impressions: use it for train-teacher, label and distill, or as a catalogue of simulate")
        spill = staging / SPILL
        units = (
            (table, _units(source, path, table, source.tables[table.name], spill))
            for table in TABLES
            if table.name in source.tables
        )
        try:
            facts = write_checked(units, staging, source=path, config=validation, quarantine=out.parent / "quarantine")
        finally:
            source.tally.say()
        shutil.rmtree(spill, ignore_errors=True)
        return {
            **facts,
            "simulated": False,
            "source": source.name,
            "grades": dict(source.grades),
            "lacks": list(source.lacks),
            "assumed": list(source.assumed),
            "left_out": source.tally.left_out,
        }

    return run_stage(
        "import",
        out,
        config=_Decisions(importing=config, validation=validation),
        inputs={"source": source.name, **source.files},
        build=build,
        force=force,
    )


def _units(source: Source, path: Path, table: Table, read: Rows, spill: Path) -> Iterator[pl.DataFrame]:
    """Frames inside which keys must be unique: each day of a dated table, else the whole table.

    Raises:
        PrectrError: the table has no rows.
    """
    rows_read = 0

    def counted() -> Iterator[pl.DataFrame]:
        nonlocal rows_read
        for frame in read():
            rows_read += frame.height
            bar.advance(frame.height)
            yield frame

    with progress.track(f"read {table.name}", unit="rows") as bar:
        if table.dated:
            yield from _by_day(counted(), spill / table.name)
        else:
            frames = list(counted())
            if rows_read:
                yield pl.concat(frames, how="diagonal_relaxed")
    if not rows_read:
        left_out = ", ".join(f"{count:,} x {reason}" for reason, count in source.tally.left_out.items())
        raise PrectrError(
            f"{path}: no rows for the table '{table.name}' in {source.name}"
            + (f" (left out: {left_out})." if left_out else ".")
        )


def _by_day(frames: Iterator[pl.DataFrame], spill: Path) -> Iterator[pl.DataFrame]:
    """Regroup chunks by day with temporary files, so that only one day of the log is in memory."""
    spill.mkdir(parents=True)
    for number, frame in enumerate(frames):
        days = frame.with_columns(pl.col("ts").dt.date().alias("__day")).partition_by("__day", as_dict=True)
        for (day,), rows in days.items():
            folder = spill / str(day)  # rows without a readable time form one more group; all of them are bad
            folder.mkdir(exist_ok=True)
            rows.drop("__day").write_parquet(folder / f"{number:06d}.parquet", compression="lz4")
    for folder in sorted(spill.iterdir()):
        parts = [pl.read_parquet(file) for file in sorted(folder.iterdir())]
        yield pl.concat(parts, how="diagonal_relaxed")
        shutil.rmtree(folder)

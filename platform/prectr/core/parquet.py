"""Parquet parts of a table, and conversion between polars and Arrow. Later stages read the sorted parts by range."""

import errno
import os
import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa

ROW_GROUP = 50_000
"""Rows of a row group. Small row groups let readers of a key range or a day skip the rest of a sorted file."""


def write_part(folder: Path, number: int, frame: pl.DataFrame) -> Path:
    """Write one part of a table and return its file. A reader never sees a partly written file.

    A task that runs again replaces the part that it wrote before.

    Raises:
        OSError: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"part-{number:04d}.parquet"
    aside = folder / f".{file.name}.{os.getpid()}"
    try:
        frame.write_parquet(aside, row_group_size=ROW_GROUP)
    except pl.exceptions.PolarsError as error:
        # Polars reports a full disk as an error of the format.
        if shutil.disk_usage(folder).free < frame.estimated_size():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file)) from error
        raise
    os.replace(aside, file)
    return file


def read_table(folder: Path, days: Sequence[date] | None = None) -> pl.DataFrame:
    """Read a table that was written in parts: all rows, or those of some days (column `date`)."""
    rows = pl.scan_parquet(folder / "*.parquet", hive_partitioning=False)
    return (rows if days is None else rows.filter(pl.col("date").is_in(list(days)))).collect()


def to_arrow(frame: pl.DataFrame) -> pa.Table:
    """Convert a frame to an Arrow table with types that every Arrow reader supports (no string views)."""
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def from_arrow(block: pa.Table) -> pl.DataFrame:
    """Convert an Arrow table to a frame."""
    frame = pl.from_arrow(block)
    assert isinstance(frame, pl.DataFrame)
    return frame

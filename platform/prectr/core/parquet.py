"""Writing tables as sorted Parquet parts that later stages read by range."""

import errno
import os
import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa

ROW_GROUP = 50_000
"""Rows of a row group: small, so that who reads a range or a day of a sorted file skips most of it."""


def write_part(folder: Path, number: int, frame: pl.DataFrame) -> Path:
    """Write one part of a table; a task that is run again replaces what it wrote, and none is ever half there.

    Raises:
        OSError: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"part-{number:04d}.parquet"
    aside = folder / f".{file.name}.{os.getpid()}"
    try:
        frame.write_parquet(aside, row_group_size=ROW_GROUP)
    except pl.exceptions.PolarsError as error:
        # Polars calls a write that a full disk cut short an error of the format.
        if shutil.disk_usage(folder).free < frame.estimated_size():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file)) from error
        raise
    os.replace(aside, file)
    return file


def read_table(folder: Path, days: Sequence[date] | None = None) -> pl.DataFrame:
    """A table that was written in parts; of some days only, if asked for."""
    rows = pl.scan_parquet(folder / "*.parquet", hive_partitioning=False)
    return (rows if days is None else rows.filter(pl.col("date").is_in(list(days)))).collect()


def to_arrow(frame: pl.DataFrame) -> pa.Table:
    """A frame as an Arrow table of types that every Arrow reader knows (no string views)."""
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def from_arrow(block: pa.Table) -> pl.DataFrame:
    """An Arrow table as a frame."""
    frame = pl.from_arrow(block)
    assert isinstance(frame, pl.DataFrame)
    return frame

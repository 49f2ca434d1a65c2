"""Parquet files and Delta Lake tables, a chunk of rows at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from prectr.core.errors import UsageError
from prectr.core.parquet import from_arrow
from prectr.data.reading.bad_rows import ROW

CHUNK_ROWS = 500_000
"""Rows of a chunk."""


def parquet_schema(file: Path) -> dict[str, pl.DataType]:
    """Types of the columns of a Parquet file."""
    return dict(pl.read_parquet_schema(file))


def read_parquet(file: Path, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Chunks of columns of a Parquet file, with `ROW` from 0."""
    scan = pl.scan_parquet(file, hive_partitioning=False, glob=False)
    rows = scan.select(pl.len()).collect().item()
    for start in range(0, rows, CHUNK_ROWS):
        count = min(CHUNK_ROWS, rows - start)
        places = pl.int_range(start, start + count, dtype=pl.Int64, eager=True).alias(ROW)
        if columns:
            yield scan.select(columns).slice(start, count).collect().with_columns(places)
        else:
            yield places.to_frame()


def count_parquet_rows(file: Path) -> int:
    """Number of rows of a Parquet file."""
    return int(pl.scan_parquet(file, glob=False).select(pl.len()).collect().item())


def open_delta(path: Path, version: int | None) -> Any:
    """Open a Delta Lake table at a version (None: the newest).

    Raises:
        UsageError: the package `deltalake` is not installed, or there is no such version.
    """
    try:
        import deltalake
    except ImportError:
        raise UsageError(
            f"{path}: is a Delta Lake table, but the package deltalake is not installed; run "
            "`pip install 'prectr[delta]'`."
        ) from None
    try:
        return deltalake.DeltaTable(str(path), version=version)
    except deltalake.exceptions.DeltaError:
        which = "" if version is None else f" of version {version}"
        raise UsageError(f"{path}: cannot be opened as a Delta Lake table{which}; check its _delta_log.") from None


def delta_schema(path: Path, version: int | None) -> dict[str, pl.DataType]:
    """Types of the columns of a Delta Lake table."""
    schema = pa.schema(open_delta(path, version).schema().to_arrow())
    return dict(from_arrow(schema.empty_table()).schema)


def read_delta(path: Path, columns: Sequence[str], version: int | None) -> Iterator[pl.DataFrame]:
    """Chunks of columns of a Delta Lake table, with `ROW` from 0 in the order of its files."""
    dataset = open_delta(path, version).to_pyarrow_dataset()
    start = 0
    for batch in dataset.to_batches(columns=list(columns), batch_size=CHUNK_ROWS):
        frame = from_arrow(pa.Table.from_batches([batch]))
        if frame.height:
            yield frame.with_columns(pl.int_range(start, start + frame.height, dtype=pl.Int64, eager=True).alias(ROW))
        start += frame.height

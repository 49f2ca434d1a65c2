"""Raw rows of CSV, JSON lines and Parquet files, a chunk at a time, with their file and row.

Only the columns asked for are read, so that long texts which nobody wants cost no memory. CSV columns stay text: what
they mean is decided in `rows`, where a value that does not fit becomes the fault of its row.
"""

import csv
import difflib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import polars as pl
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from prectr.core.errors import PrectrError
from prectr.core.parquet import from_arrow
from prectr.data.validate import FILE, ROW

CHUNK_BYTES = 16 * 1024 * 1024
CHUNK_ROWS = 200_000

Format = Literal["csv", "jsonl", "parquet"]
SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}


@dataclass(frozen=True)
class Layout:
    """How a file is written; all but `format` is about CSV."""

    format: Format = "csv"
    separator: str = ","
    quote: str | None = '"'
    encoding: str = "utf-8"
    nulls: tuple[str, ...] = ("",)


def layout_of(file: Path) -> Layout:
    """The layout that a file's suffix names; comma separated where it names none."""
    return Layout(format=SUFFIXES.get(file.suffix.lower(), "csv"))


def read_chunks(
    file: Path,
    columns: Sequence[str],
    layout: Layout,
    *,
    optional: Sequence[str] = (),
    everything: bool = False,
) -> Iterator[pl.DataFrame]:
    """Chunks of a file with the columns asked for, and `FILE` and `ROW` (from 0).

    Args:
        columns: columns that must be there.
        optional: columns that are read where they are there.
        everything: read all other columns too.

    Raises:
        PrectrError: the file cannot be read, or lacks a column.
    """

    def chosen(present: Sequence[str]) -> list[str]:
        for column in columns:
            if column not in present:
                raise PrectrError(_missing(file, column, present))
        return list(present) if everything else [name for name in present if name in {*columns, *optional}]

    read = {"csv": _read_csv, "jsonl": _read_jsonl, "parquet": _read_parquet}[layout.format]
    seen = 0
    try:
        for frame in read(file, layout, chosen):
            yield frame.with_columns(
                pl.lit(str(file)).alias(FILE), pl.int_range(seen, seen + frame.height, dtype=pl.Int64).alias(ROW)
            )
            seen += frame.height
    except (OSError, ValueError, LookupError, csv.Error, pa.ArrowException, pl.exceptions.PolarsError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PrectrError(
            f"{file}: cannot be read as {_described(layout)} ({reason}), after row {seen:,} or so. "
            "Mend the file, or say how it is written."
        ) from None


def read_whole(file: Path, columns: Sequence[str], layout: Layout, *, optional: Sequence[str] = ()) -> pl.DataFrame:
    """A small file as one frame, as `read_chunks` reads it."""
    frames = list(read_chunks(file, columns, layout, optional=optional))
    if not frames:
        raise PrectrError(f"{file}: has no rows.")
    return pl.concat(frames, how="diagonal_relaxed")


def _described(layout: Layout) -> str:
    if layout.format != "csv":
        return {"jsonl": "JSON lines", "parquet": "Parquet"}[layout.format]
    return f"CSV with separator {layout.separator!r} and encoding {layout.encoding}"


def _missing(file: Path, column: str, present: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(column, present, n=1)
    hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
    return f"{file}: column '{column}' is missing.{hint} The file has: {', '.join(present) or 'no columns'}."


Chosen = Callable[[Sequence[str]], list[str]]


def _read_csv(file: Path, layout: Layout, chosen: Chosen) -> Iterator[pl.DataFrame]:
    utf8 = layout.encoding.lower().replace("_", "-") in ("utf-8", "utf8")
    with file.open(encoding="utf-8-sig" if utf8 else layout.encoding, newline="") as stream:
        if layout.quote is None:
            rows = csv.reader(stream, delimiter=layout.separator, quoting=csv.QUOTE_NONE)
        else:
            rows = csv.reader(stream, delimiter=layout.separator, quotechar=layout.quote)
        present = next(rows, [])
    if not present:
        return
    wanted = chosen(present)
    reader = arrow_csv.open_csv(
        str(file),
        read_options=arrow_csv.ReadOptions(
            column_names=present, skip_rows=1, encoding=layout.encoding, block_size=CHUNK_BYTES, use_threads=False
        ),
        parse_options=arrow_csv.ParseOptions(
            delimiter=layout.separator, quote_char=layout.quote or False, newlines_in_values=layout.quote is not None
        ),
        convert_options=arrow_csv.ConvertOptions(
            include_columns=wanted,
            column_types={name: pa.string() for name in wanted},
            strings_can_be_null=True,
            null_values=list(layout.nulls),
        ),
    )
    for batch in reader:
        yield from_arrow(pa.table(batch))


def _read_jsonl(file: Path, layout: Layout, chosen: Chosen) -> Iterator[pl.DataFrame]:
    with file.open("rb") as stream:
        wanted: list[str] = []
        while block := _whole_lines(stream):
            frame = pl.read_ndjson(io.BytesIO(block), infer_schema_length=None)
            wanted = wanted or chosen(frame.columns)
            # A key that no line of a later chunk has is null there; whether it exists at all, the first chunk says.
            yield frame.select(pl.col(name) if name in frame.columns else pl.lit(None).alias(name) for name in wanted)


def _whole_lines(stream: BinaryIO) -> bytes:
    """The next chunk, up to the end of a line."""
    return stream.read(CHUNK_BYTES) + stream.readline()


def _read_parquet(file: Path, layout: Layout, chosen: Chosen) -> Iterator[pl.DataFrame]:
    with pq.ParquetFile(file) as opened:
        wanted = chosen(opened.schema_arrow.names)
        for batch in opened.iter_batches(batch_size=CHUNK_ROWS, columns=wanted, use_threads=False):
            yield from_arrow(pa.table(batch))

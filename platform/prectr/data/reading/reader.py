"""Chunks of any file of a user: the columns that are asked for, with `FILE` and `ROW`."""

import difflib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import polars as pl
import pyarrow as pa

from prectr.contracts.schema import Table
from prectr.core.errors import PrectrError, UsageError, listed, quoted
from prectr.data.config import ValidateConfig
from prectr.data.reading import columnar, json_lines
from prectr.data.reading.ahead import ahead
from prectr.data.reading.bad_rows import FAULT, FILE, RAW, ROW, BadRows
from prectr.data.reading.delimited import Chosen, read_delimited
from prectr.data.reading.files import ENDINGS, Layout, find_files, layout_of
from prectr.data.reading.times import Parsed
from prectr.data.reading.values import conform

Files = Sequence[tuple[Path, Layout]]
Types = Mapping[str, pl.DataType]


class Reader:
    """Reads users' files. Lines that hold no row are put into `bad`."""

    def __init__(self, bad: BadRows, config: ValidateConfig) -> None:
        self.bad, self.config = bad, config

    def chunks(
        self,
        file: Path,
        columns: Sequence[str],
        layout: Layout | None = None,
        *,
        optional: Sequence[str] = (),
        others: Types | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Chunks of a file; a file without rows gives none.

        Columns of texts (CSV, JSON lines) are text, except `others` of JSON lines.

        Args:
            file: a file, or the directory of a Delta Lake table.
            columns: columns that must be there.
            layout: how the file is written; default: as its name says.
            optional: columns that are read where they are there.
            others: further columns that are read where they are there, with the types to convert them to
                (`types_of`).

        Raises:
            PrectrError: the file cannot be read, or lacks a column.
        """
        layout = layout or _layout(file)
        others = others or {}
        self.bad.read(file, layout.format in ("csv", "jsonl"))

        def chosen(present: Sequence[str]) -> list[str]:
            for column in columns:
                if column not in present:
                    raise _missing(file, column, present)
            wanted = {*columns, *optional, *others}
            return [name for name in present if name in wanted]

        try:
            for frame in self._read(file, layout, chosen, others):
                casts = [_converted(name, frame.schema[name], others[name]) for name in others if name in frame]
                yield frame.with_columns(*casts, pl.lit(str(file)).alias(FILE))
        except _FAILURES as error:
            raise _unreadable(file, layout, error) from None

    def whole(
        self, file: Path, columns: Sequence[str], layout: Layout | None = None, *, optional: Sequence[str] = ()
    ) -> pl.DataFrame:
        """A small file as one frame, as `chunks` reads it.

        Raises:
            PrectrError: the file has no rows, cannot be read, or lacks a column.
        """
        frames = list(self.chunks(file, columns, layout, optional=optional))
        if not frames:
            raise PrectrError(f"{file}: has no rows.")
        return pl.concat(frames, how="diagonal_relaxed")

    def conform(
        self,
        frame: pl.DataFrame,
        table: Table,
        columns: Mapping[str, str | pl.Expr | Parsed],
        *,
        faults: Sequence[tuple[pl.Expr, str]] = (),
        keep: Sequence[str] = (),
    ) -> pl.DataFrame:
        """Rows of a canonical table, by `values.conform` with the settings of this reader."""
        return conform(frame, table, columns, self.config, faults=faults, keep=keep)

    def good_rows(self, files: Files, table: Table) -> Iterator[pl.DataFrame]:
        """Good rows of a table in chunks, with `FILE`, `ROW` and `FAULT`; bad rows are put into `bad`.

        Columns that a file lacks are missing in its chunks.

        Raises:
            PrectrError: a file cannot be read, lacks a column, or has one of a type that cannot be converted.
        """
        names = [column.name for column in table.columns]
        self.bad.table = table.name
        for file, layout in files:
            for frame in self.chunks(file, table.required_names, layout, optional=names):
                self.bad.rows[table.name] += frame.height
                present = [name for name in names if name in frame.columns]
                rows = self.conform(frame, table, dict(zip(present, present, strict=True)))
                self.bad.add(table.name, rows.filter(pl.col(FAULT).is_not_null()))
                good = rows.filter(pl.col(FAULT).is_null()).drop(RAW, strict=False)
                if good.height:
                    yield good

    def types_of(self, files: Files, without: Sequence[str] = (), only: Sequence[str] | None = None) -> Types:
        """Types of the columns of a table over all of its files: what holds the values of every file.

        A column is text if it is text somewhere, or if its types have nothing in common.

        Args:
            files: the files of the table, which are read as far as their types are not written at their beginning.
            without: names of columns to leave out.
            only: names of the columns to look at; default: all.

        Raises:
            PrectrError: a file cannot be read, or a column is nested in some files and is not in others.
        """
        types: dict[str, pl.DataType] = {}
        origins: dict[str, Path] = {}
        for file, layout in files:
            for schema in self._schemas(file, layout):
                for name, found in schema.items():
                    if name in without or (only is not None and name not in only):
                        continue
                    known = types.get(name, pl.Null())
                    common = _common(known, found)
                    if common is None:
                        raise PrectrError(
                            f"{file}: the column {quoted(name)} is of the type {_type_name(found)}, but "
                            f"{_type_name(known)} in {origins[name]}; write both alike, or leave the column out."
                        )
                    types[name] = common
                    origins.setdefault(name, file)
        # A column without any value has no type; text holds whatever later days bring.
        return {name: pl.String() if known == pl.Null else known for name, known in types.items()}

    def names(self, file: Path, layout: Layout | None = None) -> list[str]:
        """Names of the columns of a file, in their order.

        Raises:
            PrectrError: the file cannot be read.
        """
        return list(dict.fromkeys(name for schema in self._schemas(file, layout or _layout(file)) for name in schema))

    def _schemas(self, file: Path, layout: Layout) -> Iterator[dict[str, pl.DataType]]:
        try:
            if layout.format == "parquet":
                if columnar.count_parquet_rows(file):
                    yield columnar.parquet_schema(file)
            elif layout.format == "delta":
                yield columnar.delta_schema(file, layout.version)
            elif layout.format == "jsonl":
                with open_stream(file, layout) as stream:
                    yield from json_lines.column_types(stream)
            else:
                with open_stream(file, layout) as stream:
                    yield {name: pl.String() for name in _header(stream, layout)}
        except _FAILURES as error:
            raise _unreadable(file, layout, error) from None

    def _read(self, file: Path, layout: Layout, chosen: Chosen, others: Types) -> Iterator[pl.DataFrame]:
        if layout.format == "parquet":
            if columnar.count_parquet_rows(file):
                yield from ahead(columnar.read_parquet(file, chosen(list(columnar.parquet_schema(file)))))
            return
        if layout.format == "delta":
            names = chosen(list(columnar.delta_schema(file, layout.version)))
            yield from columnar.read_delta(file, names, layout.version)
            return
        schemas = list(self._schemas(file, layout)) if layout.format == "jsonl" else []
        with open_stream(file, layout) as stream:
            if layout.format == "csv":
                pieces = read_delimited(stream, layout, self.config.multiline_fields, chosen)
            else:
                wanted = chosen(list(dict.fromkeys(name for schema in schemas for name in schema))) if schemas else []
                pieces = json_lines.read_json_lines(stream, {name: others.get(name, pl.String()) for name in wanted})
            for piece in ahead(pieces):
                self.bad.add_lines(file, piece.bad)
                if piece.frame.height:
                    yield piece.frame


def expected_rows(files: Files) -> int | None:
    """Number of rows of some files; None if one of them does not say it.

    Raises:
        PrectrError: a file cannot be read.
    """
    rows = 0
    for file, layout in files:
        if layout.format != "parquet":
            return None
        try:
            rows += columnar.count_parquet_rows(file)
        except _FAILURES as error:
            raise _unreadable(file, layout, error) from None
    return rows


def open_stream(file: Path, layout: Layout) -> BinaryIO:
    """Open a file of texts; a compressed one is decompressed while it is read."""
    if layout.compression is None:
        return file.open("rb")
    return io.BufferedReader(pa.input_stream(str(file), compression=layout.compression), 1024 * 1024)


def _layout(file: Path) -> Layout:
    layout = layout_of(file)
    if layout is None:
        raise PrectrError(f"{file}: its name does not say how it is written; it must end with {ENDINGS}.")
    return layout


def _header(stream: BinaryIO, layout: Layout) -> list[str]:
    """Names of the columns of a CSV file that has rows; none of one without."""
    names: list[str] = []

    def remember(present: Sequence[str]) -> list[str]:
        names.extend(present)
        return []

    next(read_delimited(stream, layout, False, remember), None)
    return names


_FAILURES = (OSError, ValueError, LookupError, pa.ArrowException, pl.exceptions.PolarsError)


def _unreadable(file: Path, layout: Layout, error: Exception) -> PrectrError:
    """An error in words of ours: those of other libraries name their own inner parts."""
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    elif isinstance(error, OSError) and "Truncated" in str(error):
        reason = "its compressed content is cut off"
    elif isinstance(error, OSError):
        reason = "its content is not what its name says" if layout.compression else "it is damaged or cut off"
    elif isinstance(error, LookupError):
        reason = f"there is no encoding {quoted(layout.encoding)}"
    elif type(error) is ValueError and layout.format == "csv":
        reason = str(error)
    else:
        reason = "it is damaged, cut off, or of another format"
    return PrectrError(f"{file}: cannot be read as {layout} ({reason}). Mend the file, or say how it is written.")


def _missing(file: Path, column: str, present: Sequence[str]) -> PrectrError:
    nearest = difflib.get_close_matches(column, present, n=1)
    hint = f" Did you mean {quoted(nearest[0])}?" if nearest else ""
    return PrectrError(f"{file}: column '{column}' is missing.{hint} The file has: {listed(present) or 'no columns'}.")


def _common(one: pl.DataType, other: pl.DataType) -> pl.DataType | None:
    """A type that holds the values of both; None if one is nested and the other is not."""
    if one == other or other == pl.Null:
        return one
    if one == pl.Null:
        return other
    if one.is_nested() or other.is_nested():
        return _common_nested(one, other)
    if one.is_integer() and other.is_integer():
        return pl.Int64() if pl.UInt64 not in (one, other) else pl.String()
    if one.is_numeric() and other.is_numeric() and not (one.is_decimal() or other.is_decimal()):
        return pl.Float64()
    if isinstance(one, pl.Datetime) and isinstance(other, pl.Datetime) and bool(one.time_zone) == bool(other.time_zone):
        return pl.Datetime("us", "UTC" if one.time_zone else None)
    return pl.String()


def _common_nested(one: pl.DataType, other: pl.DataType) -> pl.DataType | None:
    if isinstance(one, pl.List | pl.Array) and isinstance(other, pl.List | pl.Array):
        inner = _common(cast(pl.DataType, one.inner), cast(pl.DataType, other.inner))
        return None if inner is None else pl.List(inner)
    if isinstance(one, pl.Struct) and isinstance(other, pl.Struct):
        fields = {field.name: cast(pl.DataType, field.dtype) for field in one.fields}
        for field in other.fields:
            common = _common(fields.get(field.name, pl.Null()), cast(pl.DataType, field.dtype))
            if common is None:
                return None
            fields[field.name] = common
        return pl.Struct(fields)
    return None


def _converted(name: str, found: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if found == wanted:
        return column
    if isinstance(found, pl.Datetime) and found.time_zone and isinstance(wanted, pl.Datetime) and wanted.time_zone:
        return column.dt.convert_time_zone(wanted.time_zone).cast(wanted)
    if isinstance(found, pl.Struct) and isinstance(wanted, pl.Struct):
        have = {field.name for field in found.fields}
        fields = [
            (column.struct.field(part.name) if part.name in have else pl.lit(None)).cast(part.dtype).alias(part.name)
            for part in wanted.fields
        ]
        return pl.when(column.is_not_null()).then(pl.struct(fields)).alias(name)
    return column.cast(wanted, strict=False)


def _type_name(kind: pl.DataType) -> str:
    return (
        "a list" if isinstance(kind, pl.List | pl.Array) else "an object" if isinstance(kind, pl.Struct) else "a value"
    )


def read_table(path: Path, table: Table, config: ValidateConfig, limit: float) -> pl.DataFrame:
    """Read a user's file of a table that fits into memory: its columns in their canonical types.

    Args:
        path: a file, or a directory of files.
        table: the table. Optional columns that no file has are left out.
        config: rules for rows.
        limit: largest share of bad rows, 0..1; bad rows below it are left out.

    Raises:
        UsageError: the path does not exist, or holds no table.
        PrectrError: a file cannot be read or lacks a column, or too many rows are bad; the message names a line.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or directory.")
    found = find_files(path)
    if not found.tables or found.not_read:
        odd = f"; {listed([file.name for file in found.not_read])} cannot be read" if found.not_read else ""
        raise UsageError(f"{path}: give a file that ends with {ENDINGS}, or a directory of such files{odd}.")
    with BadRows(None) as bad:
        frames = [rows.drop(FILE, ROW, FAULT) for rows in Reader(bad, config).good_rows(found.tables[""], table)]
        bad.require_share(table.name, limit, "Correct them.")
    empty = pl.DataFrame(schema={name: pl.String for name in table.required_names})
    return pl.concat(frames, how="diagonal_relaxed") if frames else empty

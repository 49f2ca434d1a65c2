"""Adapter of any other log: a mapping file (`mapping_config`) says how its columns become canonical ones."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from prectr.contracts.schema import TABLES, WANTED_TYPE, Table
from prectr.core.config import load_config
from prectr.core.errors import PrectrError, UsageError
from prectr.data.importers.config import ImportConfig
from prectr.data.importers.mapping_config import Category, Flag, Mapping, Position, TableFiles, Time
from prectr.data.importers.reading import SUFFIXES, Layout, read_chunks
from prectr.data.importers.rows import conform, grade_of
from prectr.data.importers.source import Rows, Source, Tally

Fault = tuple[pl.Expr, str]

_WITH_ZONE = r"(?:[Zz]|[+-]\d{2}:?\d{2})$"
"""End of a text that states its time zone."""
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_MICROSECONDS = 1_000_000


def open_mapping(path: Path, config: ImportConfig) -> Source:
    """Read the mapping file `path` and open the files that it names.

    Raises:
        UsageError: a key is unknown or missing, or no file matches a pattern.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such mapping file.")
    mapping = load_config(Mapping, path)
    files: dict[str, Path] = {"mapping": path}
    tables: dict[str, Rows] = {}
    for table in TABLES:
        settings: TableFiles | None = getattr(mapping.files, table.name)
        if settings is not None:
            table_files = _find(path, table, settings)
            files |= {f"{table.name}: {os.path.relpath(file, path.parent)}": file for file in table_files}
            tables[table.name] = _reader(path, table, settings, table_files, mapping)
    return Source(
        "mapping",
        files,
        tables,
        Tally(),
        grades=mapping.grades or {},
        lacks=tuple(f"the table {table.name}" for table in TABLES if table.name not in tables),
    )


def _find(path: Path, table: Table, settings: TableFiles) -> list[Path]:
    """The files of a table, sorted.

    Raises:
        UsageError: no file matches the pattern.
    """
    pattern = path.parent / settings.path
    matches = sorted(Path(name) for name in glob.glob(str(pattern), recursive=True))
    files = [file for file in matches if file.is_file()]
    if not files:
        raise UsageError(f"{path}: files.{table.name}: no file matches {pattern}.")
    return files


def _reader(path: Path, table: Table, settings: TableFiles, files: list[Path], mapping: Mapping) -> Rows:
    """A reader of the rows of a table from its files.

    Raises:
        UsageError: a canonical column is listed under `keep`.
    """
    meanings: dict[str, Any] = dict(getattr(mapping.columns, table.name))
    meanings = {name: meaning for name, meaning in meanings.items() if meaning is not None}
    canonical = {column.name for column in table.columns}
    for name in settings.keep:
        if name in canonical:
            raise UsageError(f"{path}: files.{table.name}.keep: '{name}' is a canonical column; map it under columns.")
    origins = [name for meaning in meanings.values() for name in _origins(meaning)]
    raw_columns = list(dict.fromkeys([*origins, *settings.keep]))

    def rows() -> Iterator[pl.DataFrame]:
        for file in files:
            for frame in read_chunks(file, raw_columns, _layout(file, settings)):
                try:
                    yield _mapped(file, frame, table, meanings, mapping, settings.keep)
                except pl.exceptions.PolarsError as error:
                    raise PrectrError(f"{file}: cannot be mapped to {table.name} ({error}).") from None

    return rows


def _layout(file: Path, settings: TableFiles) -> Layout:
    return Layout(
        format=settings.format or SUFFIXES[file.suffix.lower()],
        separator=settings.separator,
        quote=settings.quote,
        encoding=settings.encoding,
        nulls=settings.nulls,
    )


def _mapped(
    file: Path, frame: pl.DataFrame, table: Table, meanings: dict[str, Any], mapping: Mapping, keep: tuple[str, ...]
) -> pl.DataFrame:
    columns: dict[str, str | pl.Expr] = {}
    faults: list[Fault] = []
    kinds = {column.name: column.kind for column in table.columns}
    for name, meaning in meanings.items():
        if name == "grade" and mapping.grades is not None and meaning.column is not None:
            columns[name], fault = grade_of(mapping.grades, meaning.column)
            faults.append(fault)
            continue
        value = _value(file, frame, f"columns.{table.name}.{name}", meaning)
        columns[name] = value
        if meaning.column is not None:  # a value that the mapping cannot read is a fault, not a missing value
            unreadable = pl.col(meaning.column).is_not_null() & value.is_null()
            faults.append((unreadable, f"{name} is not {WANTED_TYPE[kinds[name]]}"))
    return conform(frame, table, columns, faults=faults, keep=keep)


def _origins(meaning: Any) -> list[str]:
    """Columns of the log that an entry of the mapping reads."""
    if isinstance(meaning, Category) and meaning.columns is not None:
        return list(meaning.columns)
    return [] if meaning.column is None else [meaning.column]


def _value(file: Path, frame: pl.DataFrame, key: str, meaning: Any) -> pl.Expr:
    """Expression over the log's columns for an entry of the mapping; `conform` then converts it to its type."""
    if isinstance(meaning, Category):
        return _category(meaning)
    if meaning.column is None:
        return pl.lit(getattr(meaning, "constant", None))
    if isinstance(meaning, Time):
        return _moment(file, frame, key, meaning)
    if isinstance(meaning, Flag):
        return _flag(meaning)
    column = pl.col(meaning.column)
    if isinstance(meaning, Position) and meaning.base != 1:
        return column.cast(pl.Float64, strict=False) - meaning.base + 1
    return column


def _category(meaning: Category) -> pl.Expr:
    if meaning.columns is not None:
        levels = [pl.col(name).cast(pl.String).replace("", None) for name in meaning.columns]
        return pl.concat_str(levels, separator=" > ", ignore_nulls=True).replace("", None)
    column = pl.col(meaning.column or "")
    if meaning.separator is None:
        return column
    return column.str.split(meaning.separator).list.eval(pl.element().str.strip_chars()).list.join(" > ")


def _flag(meaning: Flag) -> pl.Expr:
    column = pl.col(meaning.column or "")
    if meaning.true_when is None:
        return column
    if meaning.true_when == "present":
        return column.is_not_null()
    return column.cast(pl.String).str.strip_chars().is_in(list(meaning.true_when)).fill_null(False)


def _moment(file: Path, frame: pl.DataFrame, key: str, meaning: Time) -> pl.Expr:
    """Times in UTC; null if a time cannot be read, has no zone, or lies outside the calendar.

    Raises:
        PrectrError: the mapping does not fit the type of the column.
    """
    name = meaning.column or ""
    column, raw_type = pl.col(name), frame.schema[name]
    if meaning.unit is not None:
        if isinstance(raw_type, pl.Datetime) or not (raw_type.is_numeric() or raw_type in (pl.String, pl.Null)):
            raise PrectrError(f"{file}: column '{name}' has the type {raw_type}, not epoch counts; drop {key}.unit.")
        exact = pl.Int64 if raw_type.is_integer() else pl.Float64
        return _of_epoch(column.cast(exact, strict=False), meaning.unit)
    if raw_type == pl.Null:
        return column.cast(pl.Datetime("us", "UTC"))
    if raw_type == pl.String:
        return _of_text(file, frame, key, meaning)
    if isinstance(raw_type, pl.Datetime) and raw_type.time_zone is not None:
        return column.dt.convert_time_zone("UTC")
    if raw_type in (pl.Datetime, pl.Date):
        if meaning.zone is None:
            raise PrectrError(f"{file}: column '{name}' holds times without a zone; add {key}.zone, e.g. UTC.")
        return _in_zone(column.cast(pl.Datetime("us")), meaning.zone)
    raise PrectrError(f"{file}: column '{name}' has the type {raw_type}; if it counts from 1970, add {key}.unit.")


def _of_epoch(counts: pl.Expr, unit: str) -> pl.Expr:
    per_second = _PER_SECOND[unit]
    if per_second > _MICROSECONDS:
        micros = counts // (per_second // _MICROSECONDS)
    else:
        micros = counts * (_MICROSECONDS // per_second)
    moment = micros.cast(pl.Int64, strict=False).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return pl.when(moment.dt.year().is_between(1, 9999)).then(moment)


def _of_text(file: Path, frame: pl.DataFrame, key: str, meaning: Time) -> pl.Expr:
    name = meaning.column or ""
    text = pl.col(name).str.strip_chars()
    if meaning.format is not None:
        if meaning.zone is None:  # the format has %z: `Time` refuses a format without zone or %z
            return text.str.to_datetime(meaning.format, time_unit="us", strict=False).dt.convert_time_zone("UTC")
        return _in_zone(text.str.to_datetime(meaning.format, time_unit="us", strict=False), meaning.zone)
    zoned = text.str.contains(_WITH_ZONE)
    if meaning.zone is not None:
        naive = pl.when(~zoned).then(text)
        return _in_zone(naive.str.to_datetime(time_unit="us", strict=False), meaning.zone)
    sample = frame[name].drop_nulls().head(1000)
    if sample.len() and not sample.str.strip_chars().str.contains(_WITH_ZONE).any():
        raise PrectrError(
            f"{file}: column '{name}' holds {sample[0]!r}: a time without a zone, or not in ISO 8601. Add {key}.zone "
            f"(e.g. UTC), {key}.format (as of strftime) or {key}.unit (for epoch counts)."
        )
    return pl.when(zoned).then(text).str.to_datetime(time_unit="us", time_zone="UTC", strict=False)


def _in_zone(naive: pl.Expr, zone: str) -> pl.Expr:
    """Convert local times to UTC. An hour that occurs twice is the first one; a skipped hour gives null."""
    local = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return local.dt.convert_time_zone("UTC")

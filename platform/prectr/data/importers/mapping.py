"""A log of any shape, described by a mapping file (`mapping_config`): its columns become the canonical ones."""

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
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_MICROSECONDS = 1_000_000


def open_mapping(path: Path, config: ImportConfig) -> Source:
    """Read the mapping file `path` and find the files that it names.

    Raises:
        UsageError: an unknown or missing key, or a pattern that no file matches.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such mapping file.")
    mapping = load_config(Mapping, path)
    files: dict[str, Path] = {"mapping": path}
    tables: dict[str, Rows] = {}
    for table in TABLES:
        named: TableFiles | None = getattr(mapping.files, table.name)
        if named is not None:
            found = _find(path, table, named)
            files |= {f"{table.name}: {os.path.relpath(file, path.parent)}": file for file in found}
            tables[table.name] = _reader(path, table, named, found, mapping)
    return Source(
        "mapping",
        files,
        tables,
        Tally(),
        grades=mapping.grades or {},
        lacks=tuple(f"the table {table.name}" for table in TABLES if table.name not in tables),
    )


def _find(path: Path, table: Table, named: TableFiles) -> list[Path]:
    pattern = path.parent / named.path
    found = sorted(Path(name) for name in glob.glob(str(pattern), recursive=True))
    files = [file for file in found if file.is_file()]
    if not files:
        raise UsageError(f"{path}: files.{table.name}: no file matches {pattern}.")
    return files


def _reader(path: Path, table: Table, named: TableFiles, files: list[Path], mapping: Mapping) -> Rows:
    meanings: dict[str, Any] = dict(getattr(mapping.columns, table.name))
    meanings = {name: meaning for name, meaning in meanings.items() if meaning is not None}
    canonical = {column.name for column in table.columns}
    for name in named.keep:
        if name in canonical:
            raise UsageError(f"{path}: files.{table.name}.keep: '{name}' is a canonical column; map it under columns.")
    wanted = list(dict.fromkeys([name for meaning in meanings.values() for name in _origins(meaning)] + [*named.keep]))

    def rows() -> Iterator[pl.DataFrame]:
        for file in files:
            for frame in read_chunks(file, wanted, _layout(file, named)):
                try:
                    yield _mapped(file, frame, table, meanings, mapping, named.keep)
                except pl.exceptions.PolarsError as error:
                    raise PrectrError(f"{file}: cannot be mapped to {table.name} ({error}).") from None

    return rows


def _layout(file: Path, named: TableFiles) -> Layout:
    return Layout(
        format=named.format or SUFFIXES[file.suffix.lower()],
        separator=named.separator,
        quote=named.quote,
        encoding=named.encoding,
        nulls=named.nulls,
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
        made = _value(file, frame, f"columns.{table.name}.{name}", meaning)
        columns[name] = made
        if meaning.column is not None:  # a value that the mapping cannot read is not the same as none
            unreadable = pl.col(meaning.column).is_not_null() & made.is_null()
            faults.append((unreadable, f"{name} is not {WANTED_TYPE[kinds[name]]}"))
    return conform(frame, table, columns, faults=faults, keep=keep)


def _origins(meaning: Any) -> list[str]:
    """The columns of the log that a meaning reads."""
    if isinstance(meaning, Category) and meaning.columns is not None:
        return list(meaning.columns)
    return [] if meaning.column is None else [meaning.column]


def _value(file: Path, frame: pl.DataFrame, key: str, meaning: Any) -> pl.Expr:
    """The expression of the log's columns that a meaning stands for; `conform` then gives it its canonical type."""
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
    """Times in UTC; null where one cannot be read, lacks its zone, or lies outside the calendar.

    Raises:
        PrectrError: the column's type and what the mapping says of it do not go together.
    """
    name = meaning.column or ""
    column, found = pl.col(name), frame.schema[name]
    if meaning.unit is not None:
        if isinstance(found, pl.Datetime) or not (found.is_numeric() or found in (pl.String, pl.Null)):
            raise PrectrError(f"{file}: column '{name}' has the type {found}, not epoch counts; drop {key}.unit.")
        exact = pl.Int64 if found.is_integer() else pl.Float64
        return _of_epoch(column.cast(exact, strict=False), meaning.unit)
    if found == pl.Null:
        return column.cast(pl.Datetime("us", "UTC"))
    if found == pl.String:
        return _of_text(file, frame, key, meaning)
    if isinstance(found, pl.Datetime) and found.time_zone is not None:
        return column.dt.convert_time_zone("UTC")
    if found in (pl.Datetime, pl.Date):
        if meaning.zone is None:
            raise PrectrError(f"{file}: column '{name}' holds times without a zone; add {key}.zone, e.g. UTC.")
        return _in_zone(column.cast(pl.Datetime("us")), meaning.zone)
    raise PrectrError(f"{file}: column '{name}' has the type {found}; if it counts from 1970, add {key}.unit.")


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
        if meaning.zone is None:  # the format has %z, as the mapping's own check demands
            return text.str.to_datetime(meaning.format, time_unit="us", strict=False).dt.convert_time_zone("UTC")
        return _in_zone(text.str.to_datetime(meaning.format, time_unit="us", strict=False), meaning.zone)
    zoned = text.str.contains(_WITH_ZONE)
    if meaning.zone is not None:
        naive = pl.when(~zoned).then(text)
        return _in_zone(naive.str.to_datetime(time_unit="us", strict=False), meaning.zone)
    sample = frame[name].drop_nulls().head(1000)
    if sample.len() and not sample.str.strip_chars().str.contains(_WITH_ZONE).any():
        raise PrectrError(
            f"{file}: column '{name}' holds {sample[0]!r}: a time without a zone, or none in ISO 8601. Add {key}.zone "
            f"(e.g. UTC), {key}.format (as of strftime) or {key}.unit (for epoch counts)."
        )
    return pl.when(zoned).then(text).str.to_datetime(time_unit="us", time_zone="UTC", strict=False)


def _in_zone(naive: pl.Expr, zone: str) -> pl.Expr:
    """Local times in UTC: of an hour that comes twice the first, null in an hour that is skipped."""
    local = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return local.dt.convert_time_zone("UTC")

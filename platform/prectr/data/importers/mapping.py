"""Adapter of any other log: a mapping file (`mapping_config`) says how its columns become canonical ones."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from prectr.contracts.schema import TABLES, WANTED_TYPE, Table
from prectr.core.config import load_config
from prectr.core.errors import PrectrError, UsageError, quoted
from prectr.data.config import ValidateConfig
from prectr.data.importers.config import ImportConfig
from prectr.data.importers.flags import FlagRule
from prectr.data.importers.mapping_config import Category, Flag, Mapping, Position, TableFiles, Time
from prectr.data.reading import columnar
from prectr.data.reading.files import DELTA_LOG, Layout, compression_of, layout_of
from prectr.data.reading.reader import Reader, expected_rows
from prectr.data.reading.times import (
    NOT_ON_THE_CALENDAR,
    UTC,
    Parsed,
    fault_where,
    in_zone,
    of_counts,
    of_format,
    parse_times,
)
from prectr.data.reading.values import conform, grade_of, type_name
from prectr.data.source import Rows, Source, Tally

Fault = tuple[pl.Expr, str]


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
    versions: dict[str, int] = {}
    flags: list[FlagRule] = []
    expected: dict[str, int] = {}
    for table in TABLES:
        settings: TableFiles | None = getattr(mapping.files, table.name)
        if settings is not None:
            table_files = _find(path, table, settings)
            files |= {f"{table.name}: {os.path.relpath(file, path.parent)}": file for file in table_files}
            pinned = [(file, _layout(file, settings)) for file in table_files]
            versions |= {str(file): layout.version for file, layout in pinned if layout.version is not None}
            rows = expected_rows(pinned)
            expected |= {} if rows is None else {table.name: rows}
            rules = _flag_rules(table, mapping)
            flags += rules.values()
            tables[table.name] = _reader(path, table, settings, pinned, mapping, rules)
    return Source(
        "mapping",
        files,
        tables,
        Tally(),
        grades=mapping.grades or {},
        lacks=tuple(f"the table {table.name}" for table in TABLES if table.name not in tables),
        versions=versions,
        expected=expected,
        notes=lambda: [note for rule in flags for note in rule.notes()],
    )


def _find(path: Path, table: Table, settings: TableFiles) -> list[Path]:
    """The files of a table, sorted.

    Raises:
        UsageError: no file matches the pattern.
    """
    pattern = path.parent / settings.path
    matches = sorted(Path(name) for name in glob.glob(str(pattern), recursive=True))
    files = [file for file in matches if file.is_file() or (file / DELTA_LOG).is_dir()]
    if not files:
        raise UsageError(f"{path}: files.{table.name}: no file matches {pattern}.")
    return files


def _flag_rules(table: Table, mapping: Mapping) -> dict[str, FlagRule]:
    meanings = dict(getattr(mapping.columns, table.name))
    return {
        name: FlagRule(f"columns.{table.name}.{name}", meaning)
        for name, meaning in meanings.items()
        if isinstance(meaning, Flag) and meaning.true_when is not None
    }


def _reader(
    path: Path,
    table: Table,
    settings: TableFiles,
    files: list[tuple[Path, Layout]],
    mapping: Mapping,
    flags: dict[str, FlagRule],
) -> Rows:
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
    required = list(dict.fromkeys(name for meaning in meanings.values() for name in _origins(meaning)))

    def rows(reader: Reader) -> Iterator[pl.DataFrame]:
        others = reader.types_of(files, only=settings.keep) if settings.keep else {}
        for name in settings.keep:
            if name not in others and name not in required:
                raise PrectrError(f"{path}: files.{table.name}.keep: no file has the column {quoted(name)}.")
        # A column is read once, as text where a column of the table is made of it.
        others = {name: kind for name, kind in others.items() if name not in required}
        for file, layout in files:
            for frame in reader.chunks(file, required, layout, others=others):
                keep = [name for name in settings.keep if name in frame.columns]
                yield _mapped(file, frame, table, meanings, mapping, flags, keep, reader.config)

    return rows


def _layout(file: Path, settings: TableFiles) -> Layout:
    named = layout_of(file) or Layout("csv", compression_of(file))
    kind = settings.format or named.format
    version = settings.version
    if kind == "delta":
        version = columnar.open_delta(file, version).version()
    return Layout(
        kind,
        None if kind in ("parquet", "delta") else compression_of(file),
        settings.separator or named.separator,
        settings.quote,
        settings.encoding,
        settings.nulls,
        version,
    )


def _mapped(
    file: Path,
    frame: pl.DataFrame,
    table: Table,
    meanings: dict[str, Any],
    mapping: Mapping,
    flags: dict[str, FlagRule],
    keep: list[str],
    config: ValidateConfig,
) -> pl.DataFrame:
    columns: dict[str, str | pl.Expr | Parsed] = {}
    faults: list[Fault] = []
    kinds = {column.name: column.kind for column in table.columns}
    for name, meaning in meanings.items():
        if name == "grade" and mapping.grades is not None and meaning.column is not None:
            columns[name], fault = grade_of(mapping.grades, meaning.column)
            faults.append(fault)
        elif isinstance(meaning, Time):
            columns[name] = _times(file, frame, f"columns.{table.name}.{name}", meaning)
        elif name in flags:
            columns[name] = pl.lit(flags[name].read(file, frame))
        elif isinstance(meaning, Position) and meaning.column is not None and meaning.base != 1:
            value = pl.col(meaning.column).cast(pl.Float64, strict=False) - meaning.base + 1
            unreadable = pl.col(meaning.column).is_not_null() & value.is_null()
            faults.append((unreadable, f"{name} is not {WANTED_TYPE[kinds[name]]}"))
            columns[name] = value
        else:
            columns[name] = _value(meaning)
    return conform(frame, table, columns, config, faults=faults, keep=keep)


def _origins(meaning: Any) -> list[str]:
    """Columns of the log that an entry of the mapping reads."""
    if isinstance(meaning, Category) and meaning.columns is not None:
        return list(meaning.columns)
    return [] if meaning.column is None else [meaning.column]


def _value(meaning: Any) -> pl.Expr:
    """Expression over the log's columns for an entry of the mapping; `conform` then converts it to its type."""
    if isinstance(meaning, Category):
        return _category(meaning)
    return pl.lit(meaning.constant) if meaning.column is None else pl.col(meaning.column)


def _category(meaning: Category) -> pl.Expr:
    if meaning.columns is not None:
        levels = [pl.col(name).cast(pl.String).replace("", None) for name in meaning.columns]
        return pl.concat_str(levels, separator=" > ", ignore_nulls=True).replace("", None)
    column = pl.col(meaning.column or "").cast(pl.String)
    if meaning.separator is None:
        return column
    return column.str.split(meaning.separator).list.eval(pl.element().str.strip_chars()).list.join(" > ")


def _times(file: Path, frame: pl.DataFrame, key: str, meaning: Time) -> Parsed:
    """The times of an entry of the mapping.

    Raises:
        PrectrError: the mapping does not fit the type of the column.
    """
    name = meaning.column or ""
    values = frame[name]
    raw = values.dtype
    if isinstance(raw, pl.Categorical | pl.Enum):
        values, raw = values.cast(pl.String), pl.String()
    if raw == pl.Null:
        return Parsed(values.cast(UTC), values.cast(pl.String))
    if meaning.unit is not None:
        if not (raw.is_numeric() or raw == pl.String):
            raise PrectrError(
                f"{file}: column {quoted(name)} has the type {type_name(raw)}, not epoch counts; drop {key}.unit."
            )
        return of_counts(values, meaning.unit)
    if raw == pl.String and meaning.format is not None:
        return of_format(values, meaning.format, meaning.zone)
    if raw == pl.String or raw.is_numeric():
        return parse_times(values, meaning.zone)
    if not (isinstance(raw, pl.Datetime) or raw == pl.Date):
        raise PrectrError(f"{file}: column {quoted(name)} has the type {type_name(raw)}, which holds no times.")
    if isinstance(raw, pl.Datetime) and raw.time_zone is not None:
        times = values.dt.convert_time_zone("UTC").cast(UTC)
    elif meaning.zone is None:
        raise PrectrError(f"{file}: column {quoted(name)} holds times without a zone; add {key}.zone, e.g. UTC.")
    else:
        times = in_zone(values.cast(pl.Datetime("us")), meaning.zone)
    return Parsed(times, fault_where(times.is_null() & values.is_not_null(), NOT_ON_THE_CALENDAR))

"""Conversion of raw columns to canonical ones.

A value that does not fit the type of its column becomes null, and `FAULT` gives the reason, so that the row goes to
quarantine. A whole column of a type that cannot be converted (e.g. a list as a price) stops the import.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from prectr.contracts.schema import WANTED_TYPE, Kind, Table
from prectr.core.errors import PrectrError
from prectr.data.validate import FAULT, FILE, POLARS_TYPE, ROW, parse_text


def conform(
    frame: pl.DataFrame,
    table: Table,
    columns: Mapping[str, str | pl.Expr],
    *,
    faults: Sequence[tuple[pl.Expr, str]] = (),
    keep: Sequence[str] = (),
) -> pl.DataFrame:
    """Convert raw rows to rows of a canonical table, with the columns `FILE`, `ROW` and `FAULT`.

    Args:
        frame: raw rows with `FILE` and `ROW`.
        table: the canonical table.
        columns: new name -> raw column, or an expression of raw columns. Names outside the table become extra columns.
        faults: conditions on raw columns that make a row bad, each with its reason.
        keep: raw columns to keep under their names.

    Raises:
        PrectrError: a column has a type that cannot be converted. The message names file, column and expected type.
    """
    fault_reasons = [pl.when(condition).then(pl.lit(reason)) for condition, reason in faults]
    raw = frame.select(
        *((pl.col(origin) if isinstance(origin, str) else origin).alias(name) for name, origin in columns.items()),
        *(pl.col(name) for name in keep),
        pl.col(FILE),
        pl.col(ROW),
        pl.coalesce(*fault_reasons, pl.lit(None, dtype=pl.String)).alias(FAULT),
    )
    converted, reasons = [], [pl.col(FAULT)]
    for column in table.columns:
        if column.name not in columns:
            continue
        value = pl.col(column.name)
        canonical = _convert(column.kind, raw.schema[column.name], value)
        if canonical is None:
            raise PrectrError(
                f"{raw.item(0, FILE)}: '{column.name}' of {table.name} has the type {raw.schema[column.name]}; wanted: "
                f"{WANTED_TYPE[column.kind]}."
            )
        converted.append(canonical.alias(column.name))
        unreadable = canonical.is_null() & value.is_not_null()
        reasons.append(pl.when(unreadable).then(pl.lit(f"{column.name} is not {WANTED_TYPE[column.kind]}")))
        if column.required:
            reasons.append(pl.when(value.is_null()).then(pl.lit(f"{column.name} is null")))
    return raw.with_columns(*converted, pl.coalesce(reasons).alias(FAULT))


def _convert(kind: Kind, raw_type: pl.DataType, value: pl.Expr) -> pl.Expr | None:
    """Convert a value to its canonical type; null if the value does not fit. None: the type cannot be converted."""
    canonical_type = POLARS_TYPE[kind]
    if raw_type == pl.Null:
        return value.cast(canonical_type)
    if raw_type in (pl.String, pl.Categorical, pl.Enum):
        return parse_text(kind, value.cast(pl.String))
    if kind == "string" and raw_type.is_integer():
        return value.cast(pl.String)
    if kind == "bool" and raw_type == pl.Boolean:
        return value
    if kind == "bool" and raw_type.is_numeric():
        return pl.when(value == 1).then(True).when(value == 0).then(False).otherwise(None)
    if kind == "integer" and raw_type.is_numeric():
        whole = value.cast(canonical_type, strict=False)
        return pl.when(whole == value).then(whole).otherwise(None)
    if kind == "float" and raw_type.is_numeric():
        return value.cast(canonical_type)
    if kind == "timestamp" and isinstance(raw_type, pl.Datetime) and raw_type.time_zone is not None:
        return value.dt.convert_time_zone("UTC").cast(canonical_type)
    return None


def grade_of(grades: Mapping[str, int], label: str) -> tuple[pl.Expr, tuple[pl.Expr, str]]:
    """Grades of a column of labels, and the fault of rows with an unknown label."""
    text = pl.col(label).cast(pl.String).str.strip_chars()
    unknown = text.is_not_null() & ~text.is_in(list(grades))
    grade = text.replace_strict(dict(grades), default=None, return_dtype=pl.Int32)
    return grade, (unknown, f"{label} is not one of {', '.join(grades)}")

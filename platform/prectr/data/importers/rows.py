"""Raw columns to canonical ones.

A value that does not fit its column's type is no reason to stop: it becomes null, and the row's `FAULT` says why, so
that the row goes to quarantine. A whole column of a type that cannot be meant (a list as a price) is one.
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
    """Rows of a canonical table, with `FILE`, `ROW` and `FAULT`.

    Args:
        frame: raw rows with `FILE` and `ROW`.
        table: what they become.
        columns: name -> raw column, or an expression of raw columns. A name that is not the table's is an extra column.
        faults: conditions on the raw columns under which a row is bad, with the reason.
        keep: raw columns that are kept under their own names.

    Raises:
        PrectrError: a column has a type that cannot be converted; names file, column and the type wanted.
    """
    noted = [pl.when(condition).then(pl.lit(reason)) for condition, reason in faults]
    raw = frame.select(
        *((pl.col(made) if isinstance(made, str) else made).alias(name) for name, made in columns.items()),
        *(pl.col(name) for name in keep),
        pl.col(FILE),
        pl.col(ROW),
        pl.coalesce(*noted, pl.lit(None, dtype=pl.String)).alias(FAULT),
    )
    converted, reasons = [], [pl.col(FAULT)]
    for column in table.columns:
        if column.name not in columns:
            continue
        value = pl.col(column.name)
        made = _convert(column.kind, raw.schema[column.name], value)
        if made is None:
            raise PrectrError(
                f"{raw.item(0, FILE)}: '{column.name}' of {table.name} has the type {raw.schema[column.name]}; wanted: "
                f"{WANTED_TYPE[column.kind]}."
            )
        converted.append(made.alias(column.name))
        unreadable = made.is_null() & value.is_not_null()
        reasons.append(pl.when(unreadable).then(pl.lit(f"{column.name} is not {WANTED_TYPE[column.kind]}")))
        if column.required:
            reasons.append(pl.when(value.is_null()).then(pl.lit(f"{column.name} is null")))
    return raw.with_columns(*converted, pl.coalesce(reasons).alias(FAULT))


def _convert(kind: Kind, found: pl.DataType, value: pl.Expr) -> pl.Expr | None:
    """The value in its canonical type, null where it does not fit; None for a type that cannot be meant."""
    wanted = POLARS_TYPE[kind]
    if found == pl.Null:
        return value.cast(wanted)
    if found in (pl.String, pl.Categorical, pl.Enum):
        return parse_text(kind, value.cast(pl.String))
    if kind == "string" and found.is_integer():
        return value.cast(pl.String)
    if kind == "bool" and found == pl.Boolean:
        return value
    if kind == "bool" and found.is_numeric():
        return pl.when(value == 1).then(True).when(value == 0).then(False).otherwise(None)
    if kind == "integer" and found.is_numeric():
        whole = value.cast(wanted, strict=False)
        return pl.when(whole == value).then(whole).otherwise(None)
    if kind == "float" and found.is_numeric():
        return value.cast(wanted)
    if kind == "timestamp" and isinstance(found, pl.Datetime) and found.time_zone is not None:
        return value.dt.convert_time_zone("UTC").cast(wanted)
    return None


def grade_of(grades: Mapping[str, int], label: str) -> tuple[pl.Expr, tuple[pl.Expr, str]]:
    """The grade that a column of labels means, and the fault of a row whose label means none."""
    text = pl.col(label).cast(pl.String).str.strip_chars()
    unknown = text.is_not_null() & ~text.is_in(list(grades))
    grade = text.replace_strict(dict(grades), default=None, return_dtype=pl.Int32)
    return grade, (unknown, f"{label} is not one of {', '.join(grades)}")

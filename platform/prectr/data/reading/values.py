"""Conversion of raw columns to canonical ones.

A value that does not fit the type of its column becomes null, and `FAULT` gives the reason, so that the row goes to
quarantine. A whole column of a type that cannot be converted (e.g. a list as a price) stops the command.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from prectr.contracts.schema import CANDIDATES, IMPRESSIONS, JUDGMENTS, WANTED_TYPE, Column, Kind, Table
from prectr.core.errors import PrectrError, listed
from prectr.core.text import BLANK
from prectr.data.config import ValidateConfig
from prectr.data.reading.bad_rows import FAULT, FILE, RAW, ROW, as_json
from prectr.data.reading.times import UTC, Parsed, parse_times

POLARS_TYPE: dict[Kind, pl.DataType] = {
    "string": pl.String(),
    "timestamp": UTC,
    "integer": pl.Int32(),
    "float": pl.Float64(),
    "bool": pl.Boolean(),
}
"""Canonical type of each kind of column."""
TRUE = ("1", "1.0", "true", "t", "yes", "y", "on")
"""Spellings of true in lower case."""
FALSE = ("0", "0.0", "false", "f", "no", "n", "off")
"""Spellings of false in lower case."""

Faults = list[tuple[pl.Series, str]]
"""Masks of bad rows, each with its reason; the first reason of a row counts."""


def conform(
    frame: pl.DataFrame,
    table: Table,
    columns: Mapping[str, str | pl.Expr | Parsed],
    config: ValidateConfig,
    *,
    faults: Sequence[tuple[pl.Expr, str]] = (),
    keep: Sequence[str] = (),
    elsewhere: str | None = None,
) -> pl.DataFrame:
    """Convert raw rows to rows of a canonical table, with the columns `FILE`, `ROW` and `FAULT`.

    Args:
        frame: raw rows with `FILE` and `ROW`.
        table: the canonical table.
        columns: new name -> raw column, an expression of raw columns, or parsed times. Names outside the table become
            extra columns.
        config: words for null ids.
        faults: conditions on raw columns that make a row bad, each with its reason.
        keep: raw columns to keep under their names.
        elsewhere: day that the folder of the rows names, as YYYY-MM-DD; rows more than a day away from it are bad.

    Raises:
        PrectrError: a column has a type that cannot be converted. The message names file, column and expected type.
    """
    origins = {name: origin for name, origin in columns.items() if not isinstance(origin, Parsed)}
    raw = frame.select(
        *((pl.col(origin) if isinstance(origin, str) else origin).alias(name) for name, origin in origins.items()),
        *(pl.lit(None, dtype=UTC).alias(name) for name in columns if name not in origins),
        *(pl.col(name) for name in keep),
        pl.col(FILE),
        pl.col(ROW),
        *(condition.fill_null(False).alias(f"__fault{number}") for number, (condition, _) in enumerate(faults)),
    )
    # A title may be a word for null, and `publish` looks at ids that are not in the catalogue.
    unchecked = ("title", "item_id") if table in (IMPRESSIONS, CANDIDATES, JUDGMENTS) else ("title",)
    found: Faults = [(raw[f"__fault{number}"], reason) for number, (_, reason) in enumerate(faults)]
    converted: list[pl.Series] = []
    for column in table.columns:
        if column.name not in columns:
            continue
        origin = columns[column.name]
        values = raw[column.name]
        if isinstance(origin, Parsed):
            series, reasons = _timed(column, origin)
            if column.required:
                reasons.append((series.is_null() & origin.faults.is_null(), f"{column.name} is null"))
        else:
            series, reasons = _convert(raw.item(0, FILE) if raw.height else "", column, values)
            if column.kind == "string" and column.required and column.name not in unchecked:
                reasons += blank_faults(column.name, series, config)
        found += reasons
        converted.append(series.alias(column.name))
        if elsewhere is not None and column.kind == "timestamp":
            day = pl.Series([elsewhere]).str.to_date(strict=False).item()
            away = (series.dt.date() - day).dt.total_days().abs() > 1 if day is not None else series.is_not_null()
            found.append((away.fill_null(False), f"{column.name} is more than a day from the date of its folder"))
    marked = [(mask, reason) for mask, reason in found if mask.any()]
    fault = _first_reason(marked, raw.height)
    dropped = [f"__fault{number}" for number in range(len(faults))]
    rows = raw.drop(dropped).with_columns(*converted, fault.alias(FAULT))
    return _with_raw(rows, frame, fault.is_not_null()) if marked else rows


def _with_raw(rows: pl.DataFrame, frame: pl.DataFrame, bad: pl.Series) -> pl.DataFrame:
    """Add the column `RAW`: the content of bad rows as it was read."""
    content = pl.repeat(None, rows.height, dtype=pl.String, eager=True)
    texts = as_json(frame.filter(bad).drop(FILE, ROW, strict=False))
    return rows.with_columns(content.scatter(bad.arg_true(), texts).alias(RAW))


def _first_reason(marked: Faults, rows: int) -> pl.Series:
    if not marked:
        return pl.repeat(None, rows, dtype=pl.String, eager=True)
    masks = pl.DataFrame({str(number): mask for number, (mask, _) in enumerate(marked)})
    reasons = (pl.when(pl.col(str(number))).then(pl.lit(reason)) for number, (_, reason) in enumerate(marked))
    return masks.select(pl.coalesce(*reasons)).to_series()


def _convert(file: str, column: Column, values: pl.Series) -> tuple[pl.Series, Faults]:
    """Convert a column; a value that does not fit is null and has a fault, as a null has where a value is required."""
    missing: Faults = [(values.is_null(), f"{column.name} is null")] if column.required else []
    if column.kind == "timestamp" and _is_clock(values.dtype):
        times, faults = _timed(column, parse_times(values.cast(pl.String) if _is_text(values.dtype) else values))
        return times, missing + faults
    canonical = _canonical(column.kind, values)
    if canonical is None:
        hint = ""
        if column.kind == "timestamp" and isinstance(values.dtype, pl.Datetime):
            hint = " Give each time its zone, e.g. UTC."
        raise PrectrError(
            f"{file}: column '{column.name}' has the type {type_name(values.dtype)}; wanted: "
            f"{WANTED_TYPE[column.kind]}.{hint}"
        )
    unreadable = canonical.is_null() & values.is_not_null()
    if values.dtype == pl.String and column.kind != "string":
        unreadable &= values.str.strip_chars() != ""
        if column.required:
            missing.append((canonical.is_null() & ~unreadable, f"{column.name} is null"))
    return canonical, [*missing, (unreadable, f"{column.name} is not {WANTED_TYPE[column.kind]}")]


def _timed(column: Column, parsed: Parsed) -> tuple[pl.Series, Faults]:
    reasons = parsed.faults.drop_nulls().unique().sort().to_list()
    return parsed.times, [((parsed.faults == reason).fill_null(False), f"{column.name} {reason}") for reason in reasons]


def _canonical(kind: Kind, values: pl.Series) -> pl.Series | None:
    """Values in their canonical type, null where they do not fit; None if the type cannot be converted."""
    raw, canonical = values.dtype, POLARS_TYPE[kind]
    if raw == canonical:
        return values
    if raw == pl.Null:
        return values.cast(canonical)
    if _is_text(raw):
        return parse_text(kind, values.cast(pl.String))
    if kind == "string" and raw.is_integer():
        return values.cast(pl.String)
    if kind == "bool" and raw.is_numeric():
        yes = values == 1
        return yes.zip_with(yes | (values == 0), pl.Series([None], dtype=pl.Boolean))
    if kind == "integer" and raw.is_numeric():
        return _whole(values)
    if kind == "float" and raw.is_numeric():
        return values.cast(canonical)
    if kind == "timestamp" and isinstance(raw, pl.Datetime) and raw.time_zone is not None:
        return values.dt.convert_time_zone("UTC").cast(canonical)
    return None


def parse_text(kind: Kind, texts: pl.Series) -> pl.Series:
    """Convert texts to a kind other than a time, by its usual spellings; null where a text does not fit."""
    if kind == "string":
        return texts
    if kind == "bool":
        lower = texts.unique().to_frame("text").with_columns(lower=pl.col("text").str.strip_chars().str.to_lowercase())
        known = lower.select(
            "text",
            value=pl.when(pl.col("lower").is_in(TRUE)).then(True).when(pl.col("lower").is_in(FALSE)).then(False),
        )
        return texts.to_frame("text").join(known, on="text", how="left", maintain_order="left")["value"]
    if kind == "integer":
        numbers = texts.cast(pl.Int32, strict=False)
        if numbers.null_count() == texts.null_count():
            return numbers
        return _whole(texts.str.strip_chars().cast(pl.Float64, strict=False))
    return texts.str.strip_chars().cast(POLARS_TYPE[kind], strict=False)


def _whole(numbers: pl.Series) -> pl.Series:
    whole = numbers.cast(pl.Int32, strict=False)
    return whole.zip_with((whole == numbers).fill_null(False), pl.Series([None], dtype=pl.Int32))


def blank_faults(name: str, texts: pl.Series, config: ValidateConfig) -> Faults:
    """Texts that stand for nothing: blank ones, and words for null as ids."""
    distinct = texts.filter(texts.ne_missing(texts.shift())).unique().drop_nulls()
    bad = distinct.filter(distinct.str.contains(BLANK))
    faults: Faults = []
    if bad.len():
        faults.append((texts.is_in(bad.implode()).fill_null(False), f"{name} is blank"))
    if name.endswith("_id"):
        words = [word.lower() for word in config.null_ids]
        longest = max(map(len, words), default=0)
        short = distinct.filter(distinct.str.strip_chars().str.len_chars() <= longest)
        named = short.filter(short.str.strip_chars().str.to_lowercase().is_in(words))
        if named.len():
            reason = f"{name} is a word for null ({listed(config.null_ids)})"
            faults.append((texts.is_in(named.implode()).fill_null(False), reason))
    return faults


def null_id(name: str, words: Sequence[str]) -> pl.Expr:
    """A column of ids that may be missing: null where an id is blank or one of `words`, in any case."""
    is_word = pl.col(name).str.strip_chars().str.to_lowercase().is_in([word.lower() for word in words])
    return pl.when(~(pl.col(name).str.contains(BLANK) | is_word)).then(pl.col(name)).alias(name)


def _is_text(raw: pl.DataType) -> bool:
    return raw in (pl.String, pl.Categorical, pl.Enum)


def _is_clock(raw: pl.DataType) -> bool:
    return _is_text(raw) or raw.is_integer() or raw.is_float()


def type_name(raw: pl.DataType) -> str:
    """A type in plain words, for messages."""
    if isinstance(raw, pl.Datetime):
        return f"timestamp[{raw.time_unit}, {raw.time_zone or 'no zone'}]"
    if isinstance(raw, pl.List | pl.Array):
        return "list"
    if isinstance(raw, pl.Struct):
        return "object"
    return "timestamp without a time" if raw == pl.Date else str(raw).lower()


def grade_of(grades: Mapping[str, int], label: str) -> tuple[pl.Expr, tuple[pl.Expr, str]]:
    """Grades of a column of labels, in any case, and the fault of rows with an unknown label."""
    by_label = {name.lower(): grade for name, grade in grades.items()}
    text = pl.col(label).cast(pl.String).str.strip_chars().str.to_lowercase()
    unknown = text.is_not_null() & ~text.is_in(list(by_label))
    grade = text.replace_strict(by_label, default=None, return_dtype=pl.Int32)
    return grade, (unknown, f"{label} is not one of {listed(list(grades))}")

"""Validation of a user's log: it writes canonical tables and puts bad rows into quarantine. No row is dropped silently.

A table is `NAME.parquet`, `NAME.csv`, or a directory of such files, with or without `date=YYYY-MM-DD/` folders. A
structural fault (a missing column, a wrong type, an unreadable file) stops the command. A row with a fault goes to
quarantine with its file, row number and reason; too many bad rows stop the command.
"""

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import polars as pl

from prectr.contracts.schema import GRADES, TABLES, WANTED_TYPE, Column, Kind, Table
from prectr.core import progress
from prectr.core.artifacts import StageResult, link_or_copy, run_stage
from prectr.core.errors import PrectrError
from prectr.data.config import ValidateConfig

ROW = "__row"
"""Column of a row's number in its file, from 0."""
FILE = "__file"
"""Column of a row's file."""
FAULT = "__fault"
"""Column of the first reason why a row is bad; null for a good row."""
QUARANTINED = "rows.parquet"
"""File of the bad rows in the quarantine directory."""

POLARS_TYPE: dict[Kind, pl.DataType] = {
    "string": pl.String(),
    "timestamp": pl.Datetime("us", "UTC"),
    "integer": pl.Int32(),
    "float": pl.Float64(),
    "bool": pl.Boolean(),
}
"""Canonical type of each kind of column."""


@dataclass
class Report:
    """Result of a validation: rows read and rows quarantined by reason, for each table, and the bad rows themselves."""

    rows: dict[str, int] = field(default_factory=dict)
    quarantined: dict[str, dict[str, int]] = field(default_factory=dict)
    bad_rows: list[pl.DataFrame] = field(default_factory=list)

    def add(self, table: Table, bad: pl.DataFrame) -> None:
        """Add the bad rows of a table to the counts and to `bad_rows`."""
        reasons = self.quarantined.setdefault(table.name, {})
        for reason, count in bad.group_by(FAULT).len().iter_rows():
            reasons[reason] = reasons.get(reason, 0) + count
        content = pl.struct(pl.exclude(FILE, ROW, FAULT)).struct.json_encode()
        if bad.height:
            self.bad_rows.append(
                bad.select(
                    pl.lit(table.name).alias("table"),
                    pl.col(FILE).alias("file"),
                    pl.col(ROW).cast(pl.Int64).alias("row"),
                    pl.col(FAULT).alias("reason"),
                    content.alias("content"),
                )
            )


def validate_tables(
    source: Path, out: Path, config: ValidateConfig, force: bool = False, quarantine: Path | None = None
) -> StageResult:
    """Validate the log below `source` and publish it as canonical tables at `out`.

    Bad rows go to the directory `quarantine` (default: `quarantine/` beside `out`), even if there are too many of them
    and nothing is published.

    Raises:
        PrectrError: a structural fault, an empty table, or more bad rows in a table than `config.max_bad_share` allows.
    """

    def build(staging: Path) -> dict[str, object]:
        table_files = ((table, _find_files(source, table)) for table in TABLES)
        units = ((table, _units(table, files)) for table, files in table_files if files)
        facts = write_checked(units, staging, source=source, config=config, quarantine=quarantine_folder)
        if (source / "truth").is_dir():
            shutil.copytree(source / "truth", staging / "truth", copy_function=link_or_copy)
        return {**facts, "simulated": (source / "truth").is_dir()}

    quarantine_folder = quarantine or out.parent / "quarantine"
    if not source.is_dir():
        raise PrectrError(f"{source}: no such directory; name the one that holds the tables of the log.")
    return run_stage("validate", out, config=config, inputs={"source": source}, build=build, force=force)


def write_checked(
    tables: Iterable[tuple[Table, Iterable[pl.DataFrame]]],
    staging: Path,
    *,
    source: Path,
    config: ValidateConfig,
    quarantine: Path,
) -> dict[str, object]:
    """Check rows; write good ones below `staging` and bad ones to `quarantine`. Returns facts for the manifest.

    Args:
        tables: tables in the order of `TABLES`, each with frames inside which its key must be unique. A frame has the
            canonical types and the columns `FILE`, `ROW` and `FAULT`.
        staging: directory of the new tables.
        source: path of the user's log, for messages.
        config: limits.
        quarantine: directory of the bad rows; those of an earlier run are removed.

    Raises:
        PrectrError: a table has more bad rows than `config.max_bad_share` allows.
    """
    report = Report()
    _clear_quarantine(quarantine)
    item_ids: pl.Series | None = None
    for table, frames in tables:
        known_items = item_ids if table.name != "items" else None
        for frame in frames:
            good, bad = _good_and_bad(table, frame, known_items)
            report.rows[table.name] = report.rows.get(table.name, 0) + frame.height
            report.add(table, bad)
            if table.name == "items":
                item_ids = good["item_id"]
            _write(staging, table, good)
    _write_quarantine(quarantine, report)
    _report_counts(source, report, config, quarantine)
    good_rows = {name: count - sum(report.quarantined[name].values()) for name, count in report.rows.items()}
    return {"rows": good_rows, "quarantined": report.quarantined}


def _find_files(source: Path, table: Table) -> list[Path]:
    """The files of a table in one of the accepted layouts.

    Raises:
        PrectrError: a required table has no file.
    """
    candidates = [source / f"{table.name}.parquet", source / f"{table.name}.csv"]
    files = [file for file in candidates if file.is_file()]
    folder = source / table.name
    if not files and folder.is_dir():
        files = sorted(file for file in folder.rglob("*") if file.suffix in (".parquet", ".csv"))
    if not files and not table.optional:
        raise PrectrError(
            f"{source}: the table '{table.name}' is missing. Put it there as {table.name}.parquet, {table.name}.csv "
            f"or {table.name}/*.parquet with the columns {_describe_columns(table)}."
        )
    return files


def _describe_columns(table: Table) -> str:
    return ", ".join(f"{column.name} {WANTED_TYPE[column.kind]}" for column in table.columns if column.required)


def _units(table: Table, files: list[Path]) -> Iterator[pl.DataFrame]:
    """Frames inside which keys must be unique: each day of a partitioned table, else the whole table.

    Only one frame is in memory at a time.

    Raises:
        PrectrError: the table has no rows.
    """
    groups: dict[str, list[Path]] = {}
    for file in files:
        partition = file.parent.name if table.dated and file.parent.name.startswith("date=") else ""
        groups.setdefault(partition, []).append(file)
    rows_read = 0
    with progress.track(f"validate {table.name}", unit="rows") as bar:
        for group in groups.values():
            frame = pl.concat([_read(file, table) for file in group], how="diagonal_relaxed")
            rows_read += frame.height
            bar.advance(frame.height)
            yield frame
    if not rows_read:
        raise PrectrError(
            f"{files[0]}: the table '{table.name}' has no rows. "
            + ("Leave the file out if you have none." if table.optional else "It cannot be empty.")
        )


def _read(file: Path, table: Table) -> pl.DataFrame:
    """Read one file with canonical column types. The column `FAULT` notes values that cannot be converted.

    Raises:
        PrectrError: the file cannot be read, lacks a required column, or has a column of the wrong type.
    """
    try:
        if file.suffix == ".csv":
            raw = pl.read_csv(file, infer_schema=False)
        else:
            raw = pl.read_parquet(file, hive_partitioning=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PrectrError(f"{file}: cannot be read as {file.suffix[1:].upper()} ({reason}). Write it again.") from None
    for column in table.columns:
        if column.name in raw.columns:
            continue
        if column.required:
            raise PrectrError(
                f"{file}: column '{column.name}' is missing; wanted: {column.name} {WANTED_TYPE[column.kind]}. "
                f"The file has: {', '.join(raw.columns) or 'no columns'}."
            )
    frame = raw.with_columns(
        pl.int_range(pl.len()).alias(ROW), pl.lit(str(file)).alias(FILE), pl.lit(None, dtype=pl.String).alias(FAULT)
    )
    for column in table.columns:
        if column.name in raw.columns:
            frame = _cast(file, frame, column, from_text=file.suffix == ".csv")
    if table.dated and file.parent.name.startswith("date="):
        elsewhere = pl.col("ts").dt.date().cast(pl.String) != file.parent.name[5:]
        fault = pl.when(elsewhere).then(pl.lit("ts is not on the date of its partition"))
        frame = frame.with_columns(pl.coalesce(FAULT, fault).alias(FAULT))
    return frame


def _cast(file: Path, frame: pl.DataFrame, column: Column, from_text: bool) -> pl.DataFrame:
    raw_type = frame.schema[column.name]
    value = pl.col(column.name)
    if from_text:
        cast = parse_text(column.kind, value)
    elif _fits(column.kind, raw_type):
        cast = value.cast(POLARS_TYPE[column.kind], strict=False)
        if column.kind == "timestamp":
            cast = value.dt.convert_time_zone("UTC").cast(POLARS_TYPE["timestamp"])
    elif frame[column.name].null_count() == frame.height and not column.required:
        cast = pl.lit(None, dtype=POLARS_TYPE[column.kind])
    else:
        hint = " Give each time its zone, e.g. UTC." if column.kind == "timestamp" and raw_type == pl.Datetime else ""
        raise PrectrError(
            f"{file}: column '{column.name}' has the type {_type_name(raw_type)}; wanted: "
            f"{WANTED_TYPE[column.kind]}.{hint}"
        )
    if from_text and column.kind == "timestamp":
        sample = frame[column.name].drop_nulls().head(1000)
        zoned = sample.str.contains(r"(Z|[+-]\d{2}:?\d{2})$")
        if sample.len() and not zoned.any():
            raise PrectrError(
                f"{file}: column '{column.name}' holds times without a zone ({sample[0]!r}); wanted: "
                f"{WANTED_TYPE['timestamp']}. Give each time its zone, e.g. 2026-03-01T10:00:00Z."
            )
    unreadable = cast.is_null() & value.is_not_null()
    faults = [pl.col(FAULT), pl.when(unreadable).then(pl.lit(f"{column.name} is not {WANTED_TYPE[column.kind]}"))]
    if column.required:
        faults.append(pl.when(value.is_null()).then(pl.lit(f"{column.name} is null")))
    return frame.with_columns(pl.coalesce(faults).alias(FAULT), cast.alias(column.name))


def _fits(kind: Kind, raw_type: pl.DataType) -> bool:
    """Whether a column of a Parquet type may be converted to a kind."""
    if kind == "string":
        return raw_type in (pl.String, pl.Categorical, pl.Enum)
    if kind == "timestamp":
        return isinstance(raw_type, pl.Datetime) and raw_type.time_zone is not None
    if kind == "integer":
        return raw_type.is_integer()
    if kind == "float":
        return raw_type.is_numeric()
    return raw_type == pl.Boolean


def _type_name(raw_type: pl.DataType) -> str:
    if isinstance(raw_type, pl.Datetime):
        return f"timestamp[{raw_type.time_unit}, {raw_type.time_zone or 'no zone'}]"
    return str(raw_type).lower()


def parse_text(kind: Kind, value: pl.Expr) -> pl.Expr:
    """Convert text fields to a kind, by its usual spellings. A field that is empty or does not fit becomes null."""
    if kind == "string":
        return value
    if kind == "timestamp":
        return value.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
    if kind == "bool":
        lower = value.str.to_lowercase()
        return (
            pl.when(lower.is_in(["1", "true", "t", "yes"]))
            .then(True)
            .when(lower.is_in(["0", "false", "f", "no"]))
            .then(False)
            .otherwise(None)
        )
    return value.cast(POLARS_TYPE[kind], strict=False)


def _good_and_bad(
    table: Table, frame: pl.DataFrame, known_items: pl.Series | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Good rows and bad rows. `FAULT` of a bad row holds the first reason."""
    rules: list[tuple[pl.Expr, str]] = []
    if "position" in table.required_names:
        rules.append((pl.col("position") < 1, "position is below 1 (positions count from 1)"))
    if table.name == "judgments":
        rules.append((~pl.col("grade").is_in(list(GRADES)), "grade is not one of 0, 1, 2, 3"))
    if "propensity" in frame.columns:
        rules.append((~pl.col("propensity").is_between(0, 1, closed="right"), "propensity is not in (0, 1]"))
    if "price" in frame.columns:
        rules.append((~(pl.col("price").is_finite() & (pl.col("price") >= 0)), "price is not a finite number from 0"))
    if table.name == "items":
        rules.append((pl.col("title").str.strip_chars().str.len_chars() == 0, "title is empty"))
    if known_items is not None and "item_id" in frame.columns:
        rules.append((~pl.col("item_id").is_in(known_items.implode()), "item_id is not in items"))
    if table.dated:
        mixed = pl.struct("user_id", "query") != pl.struct("user_id", "query").first().over("request_id")
        rules.append((mixed, "request_id has more than one user_id or query"))
    fault = pl.coalesce(
        pl.col(FAULT), *(pl.when(condition.fill_null(False)).then(pl.lit(reason)) for condition, reason in rules)
    )
    # A row is a duplicate only of an earlier good row, so that a key never loses all its rows.
    repeated = pl.col(FAULT).is_null() & ~pl.struct(pl.col(FAULT).is_null(), *table.key).is_first_distinct()
    duplicate = pl.when(repeated).then(pl.lit(f"duplicate ({', '.join(table.key)})")).otherwise(pl.col(FAULT))
    checked = frame.with_columns(fault.alias(FAULT)).with_columns(duplicate.alias(FAULT))
    return checked.filter(pl.col(FAULT).is_null()), checked.filter(pl.col(FAULT).is_not_null())


def _write(staging: Path, table: Table, good: pl.DataFrame) -> None:
    content = good.drop(FILE, ROW, FAULT)
    if table.name == "judgments":
        content = content.with_columns(pl.col("grade").cast(pl.Int8))
    if not table.dated:
        content.write_parquet(staging / f"{table.name}.parquet")
        return
    content = content.with_columns(pl.col("ts").dt.date().alias("__day"))
    for (day,), rows in content.partition_by("__day", as_dict=True).items():
        assert isinstance(day, date)
        folder = staging / table.name / f"date={day}"
        folder.mkdir(parents=True, exist_ok=True)
        order = ["ts", "request_id", *(["position"] if "position" in rows.columns else ["item_id"])]
        number = len(list(folder.iterdir()))
        rows.drop("__day").sort(order).write_parquet(folder / f"part-{number:04d}.parquet")


def _clear_quarantine(quarantine: Path) -> None:
    """Remove the bad rows of an earlier run, and the directory if nothing else is in it."""
    (quarantine / QUARANTINED).unlink(missing_ok=True)
    if quarantine.is_dir() and not any(quarantine.iterdir()):
        quarantine.rmdir()


def _write_quarantine(quarantine: Path, report: Report) -> None:
    if report.bad_rows:
        quarantine.mkdir(parents=True, exist_ok=True)
        pl.concat(report.bad_rows).write_parquet(quarantine / QUARANTINED)


def _report_counts(source: Path, report: Report, config: ValidateConfig, quarantine: Path) -> None:
    """Print the counts of each table.

    Raises:
        PrectrError: a table has too many bad rows.
    """
    for name, rows in report.rows.items():
        reasons = report.quarantined[name]
        bad = sum(reasons.values())
        progress.say(f"  {name}: {rows:,} rows, {bad:,} quarantined")
        for reason, count in sorted(reasons.items(), key=lambda entry: -entry[1]):
            progress.say(f"    {count:,} x {reason}")
        if bad == rows or bad > rows * config.max_bad_share:
            raise PrectrError(
                f"{source}: {bad:,} of {rows:,} rows of '{name}' are bad (limit {config.max_bad_share:.2%}), so "
                f"nothing was written. Their file, row and reason are in {quarantine / QUARANTINED}; correct "
                "them, or raise validation.max_bad_share."
            )

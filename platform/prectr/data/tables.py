"""Validated canonical tables: their files, days and rows, and the distinct pairs of a log.

Stages read tables through this module only: it normalises queries in one place and refuses logs that nobody validated.
"""

import errno
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from prectr.core.artifacts import TABLE_STAGES, read_manifest
from prectr.core.errors import PrectrError, UsageError
from prectr.core.schema_versions import require_version
from prectr.core.text import normalise_queries


class Tables:
    """A directory of validated canonical tables.

    Open it once and pass it on; it reads files only when a method is called.

    >>> from tempfile import mkdtemp
    >>> folder = Path(mkdtemp())  # stands for a directory of `prectr simulate`, `validate` or `import`
    >>> manifest = '{"stage": "import", "identity": "1a2b", "schema": 1, "normal_form": 2}'
    >>> _ = (folder / "manifest.json").write_text(manifest)
    >>> pl.DataFrame({"item_id": ["i1"], "title": ["Nokia 3310"]}).write_parquet(folder / "items.parquet")
    >>> tables = Tables(folder)
    >>> tables.items().rows()
    [('i1', 'Nokia 3310', '', None, None)]
    >>> tables.has("judgments"), tables.days()
    (False, [])

    Raises:
        UsageError: the directory does not exist, was not written by `simulate`, `validate` or `import`, or has another
            schema version or normal form of queries.
    """

    def __init__(self, path: Path) -> None:
        manifest = read_manifest(path)
        if not path.exists():
            raise UsageError(
                f"{path}: no such file or directory. Make it with `prectr simulate --out {path}`, "
                f"or bring a log in with `prectr validate LOG --out {path}`."
            )
        if manifest is None or manifest["stage"] not in TABLE_STAGES:
            raise UsageError(
                f"{path}: not validated tables. Bring a log in with `prectr validate {path} --out DIR`, "
                "or make one with `prectr simulate --out DIR`, and give that DIR."
            )
        require_version(path, manifest)
        self.path = path
        self.simulated = bool(manifest.get("simulated", manifest["stage"] == "simulate"))

    def __str__(self) -> str:
        return str(self.path)

    def days(self, table: str = "impressions") -> list[date]:
        """The days of which the table has a folder, in order."""
        return sorted(date.fromisoformat(folder.name[5:]) for folder in (self.path / table).glob("date=*"))

    def day_files(self, table: str, day: date) -> list[Path]:
        """The Parquet files of one day."""
        return sorted((self.path / table / f"date={day}").glob("*.parquet"))

    def days_with_rows(self, table: str) -> list[date]:
        """The days on which the table has rows, in order.

        Raises:
            PrectrError: the table has no rows, or a file is damaged or not Parquet.
        """
        days = [day for day in self.days(table) if any(count_rows(file) for file in self.day_files(table, day))]
        if not days:
            raise PrectrError(f"{self.path / table}: the table has no rows, but this stage needs {table}.")
        return days

    def has(self, table: str) -> bool:
        """Whether the directory holds a table."""
        return (self.path / f"{table}.parquet").is_file() or (self.path / table).is_dir()

    def items(self) -> pl.DataFrame:
        """The catalogue with all canonical columns. Missing values of `brand` and `price` are null.

        A missing `category` is "": items without a category form one group, offline and online.
        """
        items = pl.read_parquet(self.path / "items.parquet")
        absent = [
            pl.lit(None, dtype=kind).alias(name)
            for name, kind in (("category", pl.String), ("brand", pl.String), ("price", pl.Float64))
            if name not in items.columns
        ]
        return items.with_columns(absent).with_columns(pl.col("category").fill_null(""))

    def users(self) -> pl.DataFrame:
        """User profiles. Without a table of users: no rows, and only the column `user_id`."""
        if not self.has("users"):
            return pl.DataFrame(schema={"user_id": pl.String})
        return pl.read_parquet(self.path / "users.parquet")

    def judgments(self) -> pl.DataFrame:
        """Judged pairs: query (normalised), item_id, grade int8; sorted. Of several grades the highest counts."""
        if not self.has("judgments"):
            return pl.DataFrame(schema={"query": pl.String, "item_id": pl.String, "grade": pl.Int8})
        judged = with_normal_query(
            pl.read_parquet(self.path / "judgments.parquet", columns=["query", "item_id", "grade"])
        )
        return judged.group_by("query", "item_id").agg(pl.col("grade").max().cast(pl.Int8)).sort("query", "item_id")

    def impressions(self, days: Sequence[date] | None = None, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Impressions of some days (default: all), day by day, with normalised queries and their `date`."""
        return self._dated("impressions", days, columns)

    def candidates(self, days: Sequence[date] | None = None, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Unexposed candidates of some days (default: all), as `impressions`; no rows if there is no such table."""
        return self._dated("candidates", days, columns)

    def _dated(self, table: str, days: Sequence[date] | None, columns: Sequence[str] | None) -> pl.DataFrame:
        frames = [
            read_day_file(file, columns).with_columns(pl.lit(day).alias("date"))
            for day in (self.days(table) if days is None else days)
            for file in self.day_files(table, day)
        ]
        if not frames:
            schema = {"request_id": pl.String, "user_id": pl.String, "query": pl.String, "item_id": pl.String}
            return pl.DataFrame(schema={**schema, "ts": pl.Datetime("us", "UTC"), "date": pl.Date})
        return pl.concat(frames, how="diagonal_relaxed")


def read_day_file(file: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read a Parquet file of a dated table with queries normalised. Requested columns that it lacks become nulls.

    Raises:
        PrectrError: the file is damaged or not Parquet.
    """
    loaded = read_parquet(file, columns)
    return with_normal_query(loaded) if "query" in loaded.columns else loaded


def read_parquet(
    file: Path,
    columns: Sequence[str] | None = None,
    optional: Mapping[str, Any] | None = None,
    start: int = 0,
    rows: int | None = None,
) -> pl.DataFrame:
    """Read some rows and columns of a Parquet file.

    Args:
        file: the file.
        columns: names of the columns; default: all. Columns that the file lacks become nulls.
        optional: types of columns that may be missing or all null.
        start: number of the first row, from 0.
        rows: number of rows; default: all from `start`.

    Raises:
        PrectrError: the file is damaged or not Parquet.
    """
    types = optional or {}
    try:
        frame = pl.scan_parquet(file, hive_partitioning=False)
        if columns is not None:
            present = set(frame.collect_schema().names())
            selected = {name: pl.col(name) if name in present else pl.lit(None).alias(name) for name in columns}
            frame = frame.select(
                column.cast(types[name]) if name in types else column for name, column in selected.items()
            )
        return frame.slice(start, rows).collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise _damaged(file, error) from None


def count_rows(file: Path) -> int:
    """Number of rows of a Parquet file; only its footer is read.

    Raises:
        PrectrError: the file is damaged or not Parquet.
    """
    return int(read_footer(file).num_rows)


def read_footer(file: Path) -> pq.FileMetaData:
    """Read the footer of a Parquet file.

    Raises:
        PrectrError: the file is damaged or not Parquet.
    """
    try:
        return pq.read_metadata(file)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(file, error) from None


def _damaged(file: Path, error: Exception) -> PrectrError:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return PrectrError(
        f"{file}: cannot be read as Parquet ({reason}). Write the file again or remove it, then run the command again."
    )


def with_normal_query(frame: pl.DataFrame) -> pl.DataFrame:
    """Replace the column `query` by its normal form; each distinct text is folded once."""
    forms = normalise_queries(frame["query"].unique().drop_nulls())
    normal = pl.DataFrame(
        {"query": list(forms), "normal": list(forms.values())}, schema={"query": pl.String, "normal": pl.String}
    )
    joined = frame.join(normal, on="query", how="left", maintain_order="left")
    return joined.with_columns(pl.col("normal").alias("query")).drop("normal")


def distinct_pairs(tables: Tables, until: date | None = None) -> pl.DataFrame:
    """Distinct query-item pairs of impressions and candidates, up to and including the day `until` (default: all days).

    Returns:
        columns query (normalised), item_id, exposed (shown at least once), impressions int64; sorted by query, item_id.
    """
    parts = []
    for table, exposed in (("impressions", True), ("candidates", False)):
        days = [day for day in tables.days(table) if until is None or day <= until]
        files = [file for day in days for file in tables.day_files(table, day)]
        if files:
            counts = (
                pl.scan_parquet(files, hive_partitioning=False)
                .group_by("query", "item_id")
                .agg(impressions=pl.len().cast(pl.Int64) if exposed else pl.lit(0, pl.Int64))
                .collect()
            )
            parts.append(counts.with_columns(exposed=pl.lit(exposed)))
    if not parts:
        return pl.DataFrame(
            schema={"query": pl.String, "item_id": pl.String, "exposed": pl.Boolean, "impressions": pl.Int64}
        )
    return (
        with_normal_query(pl.concat(parts))
        .group_by("query", "item_id")
        .agg(pl.col("exposed").any(), pl.col("impressions").sum())
        .sort("query", "item_id")
    )

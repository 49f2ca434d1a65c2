"""Reading validated canonical tables: where their files are and how a stage gets at them.

Stages read through this module only, so that queries are normalised in one place and raw, unvalidated logs are refused.
"""

import errno
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from prectr.core.artifacts import TABLE_STAGES, read_manifest, require_version
from prectr.core.errors import PrectrError, UsageError
from prectr.core.text import normalise_queries


class Tables:
    """A directory of validated canonical tables.

    Raises:
        UsageError: the directory was not written by `simulate`, `validate` or `import`.
    """

    def __init__(self, path: Path) -> None:
        manifest = read_manifest(path)
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
        """The days that have a partition, in order."""
        return sorted(date.fromisoformat(folder.name[5:]) for folder in (self.path / table).glob("date=*"))

    def day_files(self, table: str, day: date) -> list[Path]:
        """The Parquet files of one day."""
        return sorted((self.path / table / f"date={day}").glob("*.parquet"))

    def days_with_rows(self, table: str) -> list[date]:
        """The days of which some file has rows, in order.

        Raises:
            PrectrError: no day has any, or a file is not Parquet.
        """
        days = [day for day in self.days(table) if any(count_rows(file) for file in self.day_files(table, day))]
        if not days:
            raise PrectrError(f"{self.path / table}: no rows; {table} are needed here.")
        return days

    def has(self, table: str) -> bool:
        """Whether an optional table is there."""
        return (self.path / f"{table}.parquet").is_file() or (self.path / table).is_dir()

    def items(self) -> pl.DataFrame:
        """The catalogue with all canonical columns; `brand` and `price` are null where the source has none.

        `category` is "" there: items without one form a group of their own, offline as online, and nobody's category
        is made up.
        """
        items = pl.read_parquet(self.path / "items.parquet")
        absent = [
            pl.lit(None, dtype=kind).alias(name)
            for name, kind in (("category", pl.String), ("brand", pl.String), ("price", pl.Float64))
            if name not in items.columns
        ]
        return items.with_columns(absent).with_columns(pl.col("category").fill_null(""))

    def users(self) -> pl.DataFrame:
        """User profiles; only `user_id`, and no rows, where the source has no such table."""
        if not self.has("users"):
            return pl.DataFrame(schema={"user_id": pl.String})
        return pl.read_parquet(self.path / "users.parquet")

    def judgments(self) -> pl.DataFrame:
        """query (normalised), item_id, grade; the highest grade where one normal form was judged twice."""
        if not self.has("judgments"):
            return pl.DataFrame(schema={"query": pl.String, "item_id": pl.String, "grade": pl.Int8})
        judged = with_normal_query(
            pl.read_parquet(self.path / "judgments.parquet", columns=["query", "item_id", "grade"])
        )
        return judged.group_by("query", "item_id").agg(pl.col("grade").max().cast(pl.Int8)).sort("query", "item_id")

    def impressions(self, days: Sequence[date] | None = None, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The impressions of some days (all by default), queries normalised, in time order with their `date`."""
        return self._dated("impressions", days, columns)

    def candidates(self, days: Sequence[date] | None = None, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Unexposed candidates of some days; no rows where the source has none."""
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
    """One Parquet file of a dated table with its queries normalised.

    Columns asked for that the file lacks (optional ones) come as nulls.
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
    """Some rows and columns of a Parquet file.

    Args:
        file: the file.
        columns: the columns wanted, all by default; those that the file lacks come as nulls.
        optional: types of columns that may be missing or all null.
        start: first row.
        rows: how many; all from `start` by default.

    Raises:
        PrectrError: the file is damaged or not Parquet.
    """
    types = optional or {}
    try:
        frame = pl.scan_parquet(file, hive_partitioning=False)
        if columns is not None:
            present = set(frame.collect_schema().names())
            found = {name: pl.col(name) if name in present else pl.lit(None).alias(name) for name in columns}
            frame = frame.select(
                column.cast(types[name]) if name in types else column for name, column in found.items()
            )
        return frame.slice(start, rows).collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise _damaged(file, error) from None


def count_rows(file: Path) -> int:
    """Rows of a Parquet file, by its footer.

    Raises:
        PrectrError: the file is damaged or not Parquet.
    """
    return int(read_footer(file).num_rows)


def read_footer(file: Path) -> pq.FileMetaData:
    """The footer of a Parquet file.

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
        f"{file}: cannot be read as Parquet ({reason}). Write the file again or take it away, then run this again."
    )


def with_normal_query(frame: pl.DataFrame) -> pl.DataFrame:
    """Replace `query` by its normal form; each distinct text is folded once."""
    forms = normalise_queries(frame["query"].unique().drop_nulls())
    normal = pl.DataFrame(
        {"query": list(forms), "normal": list(forms.values())}, schema={"query": pl.String, "normal": pl.String}
    )
    joined = frame.join(normal, on="query", how="left", maintain_order="left")
    return joined.with_columns(pl.col("normal").alias("query")).drop("normal")

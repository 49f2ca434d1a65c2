"""Merging of days: from the partial aggregates of each day to decayed sums before each day and after the last.

    sums(D) = sum over days d < D of 2^(-(D - d) / half_life) * day(d)

A fold holds the sums of a range of keys and goes from day to day, vectorised over the keys. Its memory grows with the
range, not with the log.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from prectr.core.coding import code_column
from prectr.data.parts import KeyRange
from prectr.preferences.counting import sum_by
from prectr.preferences.sums import columns, fades, matrix, scale


@dataclass(frozen=True)
class Folded:
    """Decayed sums of some keys.

    Attributes:
        before: keys, date and sums of the earlier days, for each day that has rows of the key.
        after: keys and sums on the morning after the log's last day.
    """

    before: pl.DataFrame
    after: pl.DataFrame


def read_days(folder: Path, kind: str, days: Sequence[date], key: str, keys: KeyRange) -> pl.DataFrame:
    """Read one kind of partials of some days in a range of keys, with the column `date`.

    A key may have several rows a day, one for each part. Files are sorted by key, so only the row groups of the range
    are read.
    """
    in_range = pl.lit(True)
    if keys.low is not None:
        in_range &= pl.col(key) >= keys.low
    if keys.high is not None:
        in_range &= pl.col(key) < keys.high
    return pl.concat(pl.collect_all([part.filter(in_range) for part in scan_days(folder, kind, days)]))


def scan_days(folder: Path, kind: str, days: Sequence[date]) -> list[pl.LazyFrame]:
    """One kind of partials of some days, a frame for each part, with the column `date`."""
    return [
        pl.scan_parquet(file, hive_partitioning=False).with_columns(pl.lit(day).alias("date"))
        for day in days
        for file in sorted((folder / f"date={day}" / kind).glob("*.parquet"))
    ]


def fold(
    partials: pl.DataFrame, keys: list[str], names: tuple[str, ...], days: Sequence[date], half_life: float | None
) -> Folded:
    """Fold the partial sums of days into decayed sums.

    All sums decay from each day of the log to the next, also of keys without rows that day. So the result of a key does
    not depend on the other keys in the fold.

    Args:
        partials: keys, date and the whole numbers `names`, in any order, several rows for a key and day allowed.
        keys: the key columns, text.
        names: the columns to add up.
        days: all days of the log, in order.
        half_life: in days; None: no decay.
    """
    ordered = partials if partials["date"].is_sorted() else partials.sort("date", maintain_order=True)
    code, first = key_codes(ordered, keys)
    bounds = np.searchsorted(ordered["date"].to_numpy(), np.array(days, dtype="datetime64[D]"), side="right")
    sums, fading = np.zeros((len(first), len(names))), fades(names)
    rows, before = [np.zeros(0, np.int64)], [np.zeros((0, len(names)))]
    morning_after = days[-1] + timedelta(days=1)
    for start, end, day, next_day in zip([0, *bounds], bounds, days, [*days[1:], morning_after], strict=False):
        shown, first_row, day_sums = _sum_day(code[start:end], matrix(ordered[start:end], names))
        rows.append(start + first_row)
        before.append(sums[shown])
        sums[shown] += day_sums * scale(names)
        if half_life is not None:
            sums[:, fading] *= np.exp2(-(next_day - day).days / half_life)
    cells = ordered.select(*keys, "date")
    return Folded(
        cells[np.concatenate(rows)].with_columns(columns(np.concatenate(before), names)),
        cells.drop("date")[first].with_columns(columns(sums, names)).sort(keys),
    )


def key_codes(rows: pl.DataFrame, keys: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Code the rows' keys, one or two text columns: dense codes [n], and the first row [m] of each code."""
    parts = [code_column(rows[key]) for key in keys]
    code = parts[0].codes.astype(np.int64)
    for part in parts[1:]:
        code = code * max(len(part), 1) + part.codes
    dense = (
        pl.DataFrame({"code": code})
        .with_row_index("row")
        .group_by("code", maintain_order=True)
        .agg(pl.col("row").first())
    )
    dense_code = pl.DataFrame({"code": code}).join(
        dense.select("code").with_row_index("dense"), on="code", how="left", maintain_order="left"
    )["dense"]
    return dense_code.to_numpy().astype(np.int64), dense["row"].to_numpy().astype(np.int64)


def _sum_day(code: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum a day's parts: the distinct codes [m], the first row of each [m], and their sums [m, w]."""
    shown, first_row, dense = np.unique(code, return_index=True, return_inverse=True)
    return shown, first_row, sums[first_row] if len(shown) == len(code) else sum_by(dense, sums)

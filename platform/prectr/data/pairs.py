"""Distinct query-item pairs of a log."""

from datetime import date

import polars as pl

from prectr.data.tables import Tables, with_normal_query


def distinct_pairs(tables: Tables, until: date | None = None) -> pl.DataFrame:
    """Columns query (normalised), item_id, exposed (shown at least once), impressions; one row a distinct pair.

    Of the days up to `until`, if it is given.
    """
    parts = []
    for table, exposed in (("impressions", True), ("candidates", False)):
        days = [day for day in tables.days(table) if until is None or day <= until]
        files = [file for day in days for file in tables.day_files(table, day)]
        if files:
            counted = (
                pl.scan_parquet(files, hive_partitioning=False)
                .group_by("query", "item_id")
                .agg(impressions=pl.len().cast(pl.Int64) if exposed else pl.lit(0, pl.Int64))
                .collect()
            )
            parts.append(counted.with_columns(exposed=pl.lit(exposed)))
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

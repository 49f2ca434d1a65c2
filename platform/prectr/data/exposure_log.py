"""Schemas of the exposure log that a server writes, and its shown lists as canonical impressions."""

from pathlib import Path
from typing import Any

import polars as pl

TABLES: dict[str, dict[str, Any]] = {
    "assignment": {"user_id": pl.String, "variant": pl.String, "ts": pl.Datetime("us", "UTC")},
    "scored": {
        "request_id": pl.String,
        "user_id": pl.String,
        "ts": pl.Datetime("us", "UTC"),
        "query": pl.String,
        "variant": pl.String,
        "model": pl.String,
        "version": pl.String,
        "shadow": pl.Boolean,
        "item_id": pl.String,
        "rank": pl.Int32,
        "score": pl.Float64,
    },
    "events": {
        "request_id": pl.String,
        "user_id": pl.String,
        "ts": pl.Datetime("us", "UTC"),
        "query": pl.String,
        "item_id": pl.String,
        "position": pl.Int32,
        "clicked": pl.Boolean,
        "purchased": pl.Boolean,
        "price": pl.Float64,
        "told": pl.Datetime("us", "UTC"),
    },
}

"""Table -> column -> type. `told` is the time at which the server received an event."""

KEY = ("user_id", "request_id", "item_id")
"""Columns that name a row of `scored` and of the impressions in `events`."""


def is_exposure_log(path: Path) -> bool:
    """Whether a directory is an exposure log: it holds a folder for each table."""
    return all((path / name).is_dir() for name in TABLES)


def impressions(log: Path) -> pl.LazyFrame:
    """Shown items of a log as canonical impressions: one row for each item of a request of a user.

    A list may be reported several times; an item counts as clicked or purchased if any report says so. Reports of one
    request id by several users are lists of their own, because a client chooses the ids.
    """
    files = sorted((log / "events").glob("[!.]*.parquet"))
    rows = pl.scan_parquet(files) if files else pl.LazyFrame(schema=TABLES["events"])
    return (
        rows.sort("told", maintain_order=True)
        .group_by(KEY, maintain_order=True)
        .agg(
            pl.col("ts", "query", "position").first(),
            pl.col("clicked").any(),
            pl.col("purchased").any(),
            pl.col("price").drop_nulls().first(),
        )
    )


def scored_with_events(log: Path) -> pl.LazyFrame:
    """Scored items of a log with what was reported of them: one row for each item of a scored request of a user.

    The columns of `scored`, and those of `impressions` beside them: `position`, `clicked`, `purchased` and `price` are
    null for an item that no event reports. Scores and events are joined by user, request and item, because a client
    may choose request ids, and two users may choose the same one. Rows of shadow models are left out.
    """
    files = sorted((log / "scored").glob("[!.]*.parquet"))
    rows = pl.scan_parquet(files) if files else pl.LazyFrame(schema=TABLES["scored"])
    scored = rows.filter(~pl.col("shadow")).unique(KEY, keep="first", maintain_order=True)
    return scored.join(impressions(log).drop("ts", "query"), on=KEY, how="left", maintain_order="left")

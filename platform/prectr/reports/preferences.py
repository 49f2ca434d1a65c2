"""What was mined of all queries, categories and users, in figures: what the page draws and `--json` prints.

Counts fade with the artifact's half-life. Means over queries or users count each once.
"""

from pathlib import Path
from typing import Any

import polars as pl

from prectr.contracts.model_config import LEVELS
from prectr.core.artifacts import read_manifest
from prectr.preferences import mined as snapshot
from prectr.preferences.mined import Preferences
from prectr.preferences.tolerance import moments
from prectr.relevance.pairs import read_pairs

ROWS = 25
"""Categories and head queries shown."""
MOST_WORDS = 8
"""Queries of so many words and more are one group."""
IMPRESSION_GROUPS = (0.0, 10.0, 100.0, 1_000.0, 10_000.0)
USER_GROUPS = (0.0, 2.0, 10.0, 100.0, 1_000.0)
REQUEST_GROUPS = (0.0, 1.0, 3.0, 10.0, 30.0)


def overview(preferences: Preferences) -> dict[str, Any]:
    """The figures of an artifact as a JSON object."""
    manifest = read_manifest(preferences.path) or {}
    shown = [f"{name}_{level}" for name in ("impressions", "examined") for level in range(LEVELS)]
    queries = snapshot.columns(
        preferences, "query", ["query", "category", "users", "tolerance", "tolerance_sd", *shown]
    )
    queries = queries.with_columns(
        pl.sum_horizontal(f"{name}_{level}" for level in range(LEVELS)).alias(name)
        for name in ("impressions", "examined")
    )
    users = snapshot.columns(preferences, "user", ["requests", "tolerance", "tolerance_sd"])
    return {
        # A simulated log that was validated again is not marked: only its tables know.
        "simulated": str(manifest["inputs"]["tables"]).startswith("simulate:"),
        "days": [str(preferences.days[0]), str(preferences.days[-1])],
        "half_life_days": preferences.config.half_life_days,
        "rows": manifest["rows"],
        "parameters": manifest["parameters"],
        "pairs_by_source": manifest["relevance_sources"],
        "categories": _categories(queries, preferences),
        "head_queries": _head(queries),
        "by_length": _by_length(queries),
        "queries_by_impressions": _shares(queries, "impressions", IMPRESSION_GROUPS),
        "queries_by_users": _shares(queries, "users", USER_GROUPS),
        "back_off": _back_off(queries, snapshot.mean_prior_strength(preferences)),
        "users_by_requests": _cold_start(users),
        "user_prior": _prior(preferences),
    }


def _categories(queries: pl.DataFrame, preferences: Preferences) -> dict[str, Any]:
    """The categories most shown: tolerance pooled over their rows, and mean and spread over their queries."""
    pooled = snapshot.columns(preferences, "category", ["category", "tolerance", "tolerance_sd"])
    of_queries = queries.drop_nulls("category").group_by("category").agg(
        pl.len().alias("queries"),
        pl.col("impressions").sum(),
        pl.col("tolerance").mean().alias("mean"),
        pl.col("tolerance").std().alias("spread"),
    )  # fmt: skip
    found = of_queries.join(
        pooled.rename({"tolerance": "pooled", "tolerance_sd": "pooled_sd"}), on="category", how="left"
    )
    ordered = found.sort(["impressions", "category"], descending=[True, False])
    return {"known": found.height, "rows": ordered.head(ROWS).to_dicts()}


def _head(queries: pl.DataFrame) -> list[dict[str, Any]]:
    most = queries.sort(["impressions", "query"], descending=[True, False]).head(ROWS)
    return most.select("query", "impressions", "tolerance", "tolerance_sd").to_dicts()


def _by_length(queries: pl.DataFrame) -> list[dict[str, Any]]:
    words = pl.col("query").str.split(" ").list.len().clip(upper_bound=MOST_WORDS).alias("words")
    tolerance = pl.col("tolerance")
    grouped = queries.group_by(words).agg(
        pl.len().alias("queries"),
        tolerance.mean().alias("mean"),
        tolerance.quantile(0.1, "linear").alias("p10"),
        tolerance.quantile(0.9, "linear").alias("p90"),
    )
    return grouped.sort("words").to_dicts()


def _shares(queries: pl.DataFrame, column: str, lows: tuple[float, ...]) -> list[dict[str, Any]]:
    """Share of the queries, and of all impressions, by a count of theirs."""
    every = max(queries.height, 1)
    impressions = float(queries["impressions"].sum()) or 1.0
    return [
        {
            "range": name,
            "queries": group.height / every,
            "impressions": float(group["impressions"].sum()) / impressions,
        }
        for name, group in _groups(queries, column, lows)
    ]


def _back_off(queries: pl.DataFrame, strength: float) -> dict[str, float]:
    """Queries whose click rates the level above outweighs, all levels together: examined impressions < strength."""
    backed = queries.filter(pl.col("examined") < strength)
    impressions = float(queries["impressions"].sum()) or 1.0
    return {
        "strength": strength,
        "queries": backed.height / max(queries.height, 1),
        "impressions": float(backed["impressions"].sum()) / impressions,
    }


def _cold_start(users: pl.DataFrame) -> list[dict[str, Any]]:
    """How far users are known by how much they did: mean tolerance, its spread over users, and mean posterior sd."""
    return [
        {
            "range": name,
            "users": group.height,
            "mean": group["tolerance"].mean(),
            "spread": group["tolerance"].std(),
            "posterior_sd": group["tolerance_sd"].mean(),
        }
        for name, group in _groups(users, "requests", REQUEST_GROUPS)
    ]


def _prior(preferences: Preferences) -> dict[str, float]:
    mean, deviation = moments(preferences.model.user_prior[None])
    return {"mean": float(mean[0]), "sd": float(deviation[0])}


def _groups(frame: pl.DataFrame, column: str, lows: tuple[float, ...]) -> list[tuple[str, pl.DataFrame]]:
    """The rows in each range of a column, named; from each bound up to but not including the next."""
    made = []
    for low, high in zip(lows, (*lows[1:], None), strict=True):
        name = f"{low:,.0f}+" if high is None else f"< {high:,.0f}" if low == 0 else f"{low:,.0f} to {high:,.0f}"
        inside = pl.col(column) >= low if high is None else (pl.col(column) >= low) & (pl.col(column) < high)
        made.append((name, frame.filter(inside)))
    return made


def coverage_by_source(preferences: Preferences, relevance: Path) -> dict[str, dict[str, float]]:
    """Share of the scored pairs and of the (faded) impressions by the source of their relevance: judgment, teacher, ...

    Args:
        preferences: the artifact; its impressions are counted.
        relevance: the `score-relevance` artifact that it was mined with.
    """
    pairs = read_pairs(relevance, ["query", "item_id", "source"])
    shown = snapshot.columns(preferences, "pair", ["query", "item_id", "impressions"])
    counted = pairs.join(shown, on=["query", "item_id"], how="left").with_columns(pl.col("impressions").fill_null(0.0))
    shares = (
        counted.group_by("source")
        .agg(pl.len().cast(pl.Float64).alias("pairs"), pl.col("impressions").sum())
        .with_columns(pl.col("pairs", "impressions") / pl.col("pairs", "impressions").sum())
    )
    return {
        row["source"]: {"pairs": row["pairs"], "impressions": row["impressions"]}
        for row in shares.sort("source").to_dicts()
    }

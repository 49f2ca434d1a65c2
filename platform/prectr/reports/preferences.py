"""Figures of the mined preferences over all queries, categories and users, for the page and for `--json`.

Counts fade with the half-life of the artifact. Means over queries or users count each of them once.
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
"""Number of categories and of head queries shown."""
MOST_WORDS = 8
"""Queries with at least this many words form one group."""
IMPRESSION_GROUPS = (0.0, 10.0, 100.0, 1_000.0, 10_000.0)
USER_GROUPS = (0.0, 2.0, 10.0, 100.0, 1_000.0)
REQUEST_GROUPS = (0.0, 1.0, 3.0, 10.0, 30.0)


def overview(preferences: Preferences) -> dict[str, Any]:
    """Compute the figures of a `mine-preferences` artifact as a JSON object."""
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
        # A simulated log that `validate` wrote again is not recognised: only its tables record that.
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
    """Most shown categories: tolerance pooled over all their rows, and mean and spread over their queries."""
    pooled = snapshot.columns(preferences, "category", ["category", "tolerance", "tolerance_sd"])
    of_queries = queries.drop_nulls("category").group_by("category").agg(
        pl.len().alias("queries"),
        pl.col("impressions").sum(),
        pl.col("tolerance").mean().alias("mean"),
        pl.col("tolerance").std().alias("spread"),
    )  # fmt: skip
    categories = of_queries.join(
        pooled.rename({"tolerance": "pooled", "tolerance_sd": "pooled_sd"}), on="category", how="left"
    )
    ordered = categories.sort(["impressions", "category"], descending=[True, False])
    return {"known": categories.height, "rows": ordered.head(ROWS).to_dicts()}


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
    """Shares of queries and of impressions in groups of queries by a count column."""
    total = max(queries.height, 1)
    impressions = float(queries["impressions"].sum()) or 1.0
    return [
        {
            "range": name,
            "queries": group.height / total,
            "impressions": float(group["impressions"].sum()) / impressions,
        }
        for name, group in _groups(queries, column, lows)
    ]


def _back_off(queries: pl.DataFrame, strength: float) -> dict[str, float]:
    """Queries with fewer examined impressions than the prior strength: the category outweighs their own clicks."""
    backed_off = queries.filter(pl.col("examined") < strength)
    impressions = float(queries["impressions"].sum()) or 1.0
    return {
        "strength": strength,
        "queries": backed_off.height / max(queries.height, 1),
        "impressions": float(backed_off["impressions"].sum()) / impressions,
    }


def _cold_start(users: pl.DataFrame) -> list[dict[str, Any]]:
    """Groups of users by requests: mean tolerance, its spread over users, and mean posterior deviation."""
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
    """Split rows by a column into named ranges; each range includes its lower bound and excludes its upper bound."""
    groups = []
    for low, high in zip(lows, (*lows[1:], None), strict=True):
        name = f"{low:,.0f}+" if high is None else f"< {high:,.0f}" if low == 0 else f"{low:,.0f} to {high:,.0f}"
        in_range = pl.col(column) >= low if high is None else (pl.col(column) >= low) & (pl.col(column) < high)
        groups.append((name, frame.filter(in_range)))
    return groups


def coverage_by_source(preferences: Preferences, relevance: Path) -> dict[str, dict[str, float]]:
    """Compute shares of scored pairs and of (faded) impressions by source of relevance: judgment, teacher, ...

    Args:
        preferences: the `mine-preferences` artifact with the impressions.
        relevance: the `score-relevance` artifact from which it was mined.
    """
    pairs = read_pairs(relevance, ["query", "item_id", "source"])
    shown = snapshot.columns(preferences, "pair", ["query", "item_id", "impressions"])
    joined = pairs.join(shown, on=["query", "item_id"], how="left").with_columns(pl.col("impressions").fill_null(0.0))
    shares = (
        joined.group_by("source")
        .agg(pl.len().cast(pl.Float64).alias("pairs"), pl.col("impressions").sum())
        .with_columns(pl.col("pairs", "impressions") / pl.col("pairs", "impressions").sum())
    )
    return {
        row["source"]: {"pairs": row["pairs"], "impressions": row["impressions"]}
        for row in shares.sort("source").to_dicts()
    }

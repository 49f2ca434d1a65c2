"""Mined preferences of one query as a JSON object: levels, tolerance, prices, behaviours, and priors to compare with.

Counts fade with the half-life of the artifact: ranking uses these counts, not those of the log.
"""

import difflib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prectr.contracts.model_config import LEVELS
from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.artifacts import require_artifact
from prectr.core.errors import PrectrError, quoted
from prectr.core.text import normalise_query
from prectr.data.tables import Tables
from prectr.preferences import mined as snapshot
from prectr.preferences.counting import QUANTILE_NAMES
from prectr.preferences.mined import Preferences
from prectr.preferences.sums import LEVEL_NAMES, LevelSums, matrix
from prectr.preferences.tolerance import GRID, moments, posterior
from prectr.reports.terminal import LEVEL_NAMES as LEVEL_LABELS

NEAREST = 5
"""Nearest known queries that an error suggests."""
_COMPARED = 200
"""Most candidates for the comparison letter by letter; they share the most letter triples."""
RATE_NAMES = tuple(f"rate_{level}" for level in range(LEVELS))
SHARE_NAMES = tuple(f"click_share_{level}" for level in range(LEVELS))


def mined_query(
    preferences: Preferences, query: str, tables: Tables | None = None, relevance: Path | None = None
) -> dict[str, Any]:
    """Collect the mined preferences of a query.

    Args:
        preferences: the `mine-preferences` artifact.
        query: the query as typed; it is normalised.
        tables: canonical tables with the titles of the behaviours' items; None: no titles.
        relevance: `score-relevance` artifact with the levels of these items; None: no levels.

    Raises:
        UsageError: `tables` or `relevance` is not such an artifact.
        PrectrError: no user typed the query. The message names similar queries and the prior of unknown ones.
    """
    normal = normalise_query(query)
    rows = snapshot.rows(preferences, "query", query=normal)
    if not rows.height:
        raise PrectrError(_unknown(preferences, normal))
    row = rows.row(0, named=True)
    sums = LevelSums.split(matrix(rows, LEVEL_NAMES))
    model, category = preferences.model, row["category"]
    prior = model.query_priors([category])
    of_category = snapshot.rows(preferences, "category", category=category) if category is not None else rows.clear()
    distribution = posterior(sums.grid, prior)[0]
    return {
        "query": normal,
        "last_day": str(preferences.days[-1]),
        "half_life_days": preferences.config.half_life_days,
        "category": category,
        "users": row["users"],
        "impressions": float(sums.impressions.sum()),
        "clicks": float(sums.clicks.sum()),
        "levels": _levels(row, sums, snapshot.prior_strength(preferences)),
        "tolerance": {
            "mean": row["tolerance"],
            "sd": row["tolerance_sd"],
            "grid": GRID.tolist(),
            "posterior": distribution.tolist(),
        },
        "beside": {
            "all shown rows of the category": _pooled_tolerance(of_category),
            "prior: queries of the category": _tolerance(prior[0]),
            "prior: all queries": _tolerance(model.query_prior),
        },
        "prices": {
            "query": {name: row[name] for name in QUANTILE_NAMES},
            "category": {name: of_category[name].item() if of_category.height else None for name in QUANTILE_NAMES},
        },
        "behaviours": _behaviours(preferences, normal, tables, relevance),
    }


def nearest_queries(queries: pl.Series, query: str, count: int = NEAREST) -> list[str]:
    """Find the queries with the most similar spelling to `query`, most similar first.

    A vectorised filter selects the queries that share the most letter triples; only these are compared by letters.
    """
    padded = f" {query} "
    triples = sorted({padded[start : start + 3] for start in range(len(padded) - 2)})
    if not triples:
        return []
    frame = queries.alias("query").to_frame().with_columns((" " + pl.col("query") + " ").alias("padded"))
    shared = pl.sum_horizontal(pl.col("padded").str.contains(triple, literal=True) for triple in triples)
    likeness = 2 * shared / (len(triples) + pl.col("padded").str.len_chars() - 2)
    near = frame.with_columns(likeness.alias("likeness")).filter(pl.col("likeness") > 0)
    candidates = near.sort(["likeness", "query"], descending=[True, False]).head(_COMPARED)["query"].to_list()
    return difflib.get_close_matches(query, candidates, n=count, cutoff=0.0)


def _levels(row: dict[str, Any], sums: LevelSums, strength: np.ndarray) -> list[dict[str, Any]]:
    levels = []
    for level, name in enumerate(LEVEL_LABELS):
        shown, clicks = float(sums.impressions[0, level]), float(sums.clicks[0, level])
        examined = float(sums.examined[0, level])
        levels.append(
            {
                "level": level,
                "name": name,
                "impressions": shown,
                "clicks": clicks,
                "ctr": clicks / shown if shown else None,
                "examined": examined,
                "debiased_clicks": float(sums.debiased_clicks[0, level]),
                "rate": row[RATE_NAMES[level]],
                "own_weight": examined / (examined + float(strength[level])),
                "click_share": row[SHARE_NAMES[level]],
            }
        )
    return levels


def _tolerance(distribution: np.ndarray) -> dict[str, float]:
    mean, deviation = moments(distribution[None])
    return {"mean": float(mean[0]), "sd": float(deviation[0])}


def _pooled_tolerance(category: pl.DataFrame) -> dict[str, float] | None:
    if not category.height:
        return None
    return {"mean": category["tolerance"].item(), "sd": category["tolerance_sd"].item()}


def _behaviours(
    preferences: Preferences, query: str, tables: Tables | None, relevance: Path | None
) -> list[dict[str, Any]]:
    """Behaviours S_q: clicks first, then the latest; with titles and levels if their sources are given."""
    behaviours = snapshot.rows(preferences, "behaviour", query=query)
    behaviours = behaviours.sort(["clicked", "ts", "user_id", "item_id"], descending=[True, True, False, False])
    shown = behaviours.select("item_id", "clicked", "ts", "user_id", "user_group")
    if relevance is not None:
        require_artifact(relevance, "score-relevance")
        pairs = pl.scan_parquet(relevance / "pairs" / "*.parquet").filter(pl.col("query") == query)
        level = pl.concat_list(LEVEL_COLUMNS).list.arg_max().alias("level")
        shown = shown.join(pairs.select("item_id", level).collect(), on="item_id", how="left", maintain_order="left")
    if tables is not None:
        titles = pl.scan_parquet(tables.path / "items.parquet").select("item_id", "title")
        titles = titles.filter(pl.col("item_id").is_in(shown["item_id"].unique().implode()))
        shown = shown.join(titles.collect(), on="item_id", how="left", maintain_order="left")
    return shown.with_columns(pl.col("ts").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_dicts()


def _unknown(preferences: Preferences, query: str) -> str:
    """Message for an unknown query: the prior of unknown queries, and the nearest known queries."""
    mined_queries = snapshot.columns(preferences, "query", ["query", "category"])
    nearest = nearest_queries(mined_queries["query"], query)
    average = _tolerance(preferences.model.query_prior)
    lines = [
        f"{preferences.path}: no user typed {quoted(query)} up to {preferences.days[-1]}.",
        f"  An unknown query gets the average: tolerance {average['mean']:.2f} ± {average['sd']:.2f}, "
        f"clicks per examined impression {_by_level(snapshot.overall_rates(preferences))}.",
    ]
    categories = mined_queries.filter(pl.col("query").is_in(nearest[:1]))["category"].to_list()
    if categories and categories[0] is not None:
        of_category = snapshot.rows(preferences, "category", category=categories[0])
        prior = _tolerance(preferences.model.query_priors(categories)[0])
        rates = f", clicks {_by_level(matrix(of_category, RATE_NAMES)[0])}" if of_category.height else ""
        lines.append(
            f"  If it shows mostly items of {quoted(categories[0])}, the category of the nearest query: "
            f"{prior['mean']:.2f} ± {prior['sd']:.2f}{rates}."
        )
    lines.append(f"  Nearest known queries: {', '.join(quoted(near) for near in nearest) or 'none'}.")
    return "\n".join(lines)


def _by_level(rates: np.ndarray) -> str:
    return ", ".join(f"{name} {rate:.3f}" for name, rate in zip(LEVEL_LABELS, rates, strict=True))

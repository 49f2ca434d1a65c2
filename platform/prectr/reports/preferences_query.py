"""What was mined for one query, as a JSON object: levels, tolerance, prices, behaviours, and what stands beside them.

Counts fade with the artifact's half-life: they are what ranking uses, not what the log holds.
"""

import difflib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prectr.contracts.model_config import LEVELS
from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.artifacts import require_artifact
from prectr.core.errors import PrectrError
from prectr.core.text import normalise_query
from prectr.data.tables import Tables
from prectr.preferences import mined as snapshot
from prectr.preferences.mined import Preferences
from prectr.preferences.prices import QUANTILE_NAMES
from prectr.preferences.sums import LEVEL_NAMES, LevelSums, matrix
from prectr.preferences.tolerance import GRID, moments, posterior
from prectr.reports.terminal import LEVEL_NAMES as LEVEL_LABELS

NEAREST = 5
_COMPARED = 200
"""Queries that share the most letter triples, which are compared letter by letter."""
RATE_NAMES = tuple(f"rate_{level}" for level in range(LEVELS))
SHARE_NAMES = tuple(f"click_share_{level}" for level in range(LEVELS))


def mined_query(
    preferences: Preferences, query: str, tables: Tables | None = None, relevance: Path | None = None
) -> dict[str, Any]:
    """All that was mined for a query.

    Args:
        preferences: the artifact.
        query: as typed; it is normalised.
        tables: where the titles of the behaviours' items are; None: no titles.
        relevance: where their levels are; None: no levels.

    Raises:
        UsageError: `tables` or `relevance` is not what it should be.
        PrectrError: nobody typed the query; says which known ones are near and what is assumed of an unknown one.
    """
    normal = normalise_query(query)
    found = snapshot.rows(preferences, "query", query=normal)
    if not found.height:
        raise PrectrError(_unknown(preferences, normal))
    row = found.row(0, named=True)
    sums = LevelSums.split(matrix(found, LEVEL_NAMES))
    model, category = preferences.model, row["category"]
    prior = model.query_priors([category])
    of_category = snapshot.rows(preferences, "category", category=category) if category is not None else found.clear()
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


def nearest_queries(queries: pl.Series, wanted: str, count: int = NEAREST) -> list[str]:
    """The known queries that are written most like `wanted`, nearest first.

    Those that share the most letter triples are found vectorised; only these are compared letter by letter.
    """
    padded = f" {wanted} "
    triples = sorted({padded[place : place + 3] for place in range(len(padded) - 2)})
    if not triples:
        return []
    known = queries.alias("query").to_frame().with_columns((" " + pl.col("query") + " ").alias("padded"))
    shared = pl.sum_horizontal(pl.col("padded").str.contains(triple, literal=True) for triple in triples)
    likeness = 2 * shared / (len(triples) + pl.col("padded").str.len_chars() - 2)
    near = known.with_columns(likeness.alias("likeness")).filter(pl.col("likeness") > 0)
    candidates = near.sort(["likeness", "query"], descending=[True, False]).head(_COMPARED)["query"].to_list()
    return difflib.get_close_matches(wanted, candidates, n=count, cutoff=0.0)


def _levels(row: dict[str, Any], sums: LevelSums, strength: np.ndarray) -> list[dict[str, Any]]:
    made = []
    for level, name in enumerate(LEVEL_LABELS):
        shown, clicks = float(sums.impressions[0, level]), float(sums.clicks[0, level])
        examined = float(sums.examined[0, level])
        made.append(
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
    return made


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
    """S_q, best first; titles and levels where their tables are given."""
    known = snapshot.rows(preferences, "behaviour", query=query)
    known = known.sort(["clicked", "ts", "user_id", "item_id"], descending=[True, True, False, False])
    shown = known.select("item_id", "clicked", "ts", "user_id", "user_group")
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
    known = snapshot.columns(preferences, "query", ["query", "category"])
    nearest = nearest_queries(known["query"], query)
    assumed = _tolerance(preferences.model.query_prior)
    lines = [
        f"{preferences.path}: nobody typed {query!r} up to {preferences.days[-1]}.",
        f"  An unknown query is taken for an average one: tolerance {assumed['mean']:.2f} ± {assumed['sd']:.2f}, "
        f"clicks per examined impression {_by_level(snapshot.overall_rates(preferences))}.",
    ]
    categories = known.filter(pl.col("query").is_in(nearest[:1]))["category"].to_list()
    if categories and categories[0] is not None:
        of_category = snapshot.rows(preferences, "category", category=categories[0])
        prior = _tolerance(preferences.model.query_priors(categories)[0])
        rates = f", clicks {_by_level(matrix(of_category, RATE_NAMES)[0])}" if of_category.height else ""
        lines.append(
            f"  Once it is known to ask for {categories[0]!r}, the category of the nearest query: "
            f"{prior['mean']:.2f} ± {prior['sd']:.2f}{rates}."
        )
    lines.append(f"  Nearest known queries: {', '.join(repr(near) for near in nearest) or 'none'}.")
    return "\n".join(lines)


def _by_level(rates: np.ndarray) -> str:
    return ", ".join(f"{name} {rate:.3f}" for name, rate in zip(LEVEL_LABELS, rates, strict=True))

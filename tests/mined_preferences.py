"""Small artifacts of mine-preferences and score-relevance, written by hand: no mining, no Ray."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prectr.core.artifacts import run_stage, write_json
from prectr.core.parquet import write_part
from prectr.data.tables import Tables
from prectr.preferences.config import PreferencesConfig
from prectr.preferences.examination import Examination
from prectr.preferences.fit import PreferenceModel
from prectr.preferences.sums import LEVEL_NAMES
from prectr.preferences.tolerance import GRID, GRID_SIZE, ClickParameters
from prectr.relevance.config import ScoreConfig


def point(threshold: float) -> np.ndarray:
    """[G] a prior that is sure of the grid's point nearest to a threshold."""
    return np.eye(GRID_SIZE)[int(np.abs(GRID - threshold).argmin())]


MODEL = PreferenceModel(
    click=ClickParameters(a=0.4, s=0.15, eps=0.02),
    examination=Examination(1.0, "randomised slice", 321),
    user_prior=(point(0.4) + point(0.6)) / 2,
    query_prior=point(0.5),
    category_query_prior={"phones": point(0.7)},
)
DAYS = (date(2026, 3, 1), date(2026, 3, 2))


def query_row(query: str, category: str | None = None, **values: Any) -> dict[str, Any]:
    """A row of `snapshot/query`; what is not given is zero, 0.5 or unknown."""
    row: dict[str, Any] = dict.fromkeys(LEVEL_NAMES, 0.0)
    row |= {"query": query, "category": category, "users": 0.0, "tolerance": 0.5, "tolerance_sd": 0.1}
    row |= {f"{name}_{level}": 0.25 for name in ("rate", "click_share") for level in range(4)}
    row |= {"price_p10": None, "price_p50": None, "price_p90": None}
    assert values.keys() <= row.keys()
    return row | values


def behaviour(query: str, user: str, item: str, clicked: bool, minute: int) -> dict[str, Any]:
    """A row of `snapshot/behaviour`."""
    moment = datetime(2026, 3, 2, 12, minute, tzinfo=UTC)
    return {"query": query, "user_id": user, "item_id": item, "clicked": clicked, "ts": moment, "user_group": 2}


def write_preferences(
    out: Path,
    *,
    inputs: dict[str, Path | str],
    queries: Sequence[dict[str, Any]],
    users: pl.DataFrame,
    pairs: pl.DataFrame | None = None,
    behaviours: Sequence[dict[str, Any]] = (),
    sources: dict[str, int] | None = None,
) -> Path:
    """Publish a `mine-preferences` artifact of two days; its categories and totals are added up from `queries`.

    Args:
        out: where.
        inputs: the stage's inputs, "tables" and "relevance".
        queries: rows of `snapshot/query`.
        users: user_id, requests, tolerance and tolerance_sd.
        pairs: query, item_id and impressions.
        behaviours: rows of `snapshot/behaviour`.
        sources: pairs by source of their relevance.
    """

    def build(staging: Path) -> dict[str, Any]:
        query = pl.DataFrame(list(queries), schema_overrides={"category": pl.String}, infer_schema_length=None)
        query = query.with_columns(pl.col("price_p10", "price_p50", "price_p90").cast(pl.Float64))
        category = query.drop_nulls("category").group_by("category").agg(
            pl.col(LEVEL_NAMES).sum(), pl.exclude(*LEVEL_NAMES, "query", "users").first()
        )  # fmt: skip
        behaviour_schema = {
            "query": pl.String,
            "user_id": pl.String,
            "item_id": pl.String,
            "clicked": pl.Boolean,
            "ts": pl.Datetime("us", "UTC"),
            "user_group": pl.Int32,
        }
        pair_schema = {"query": pl.String, "item_id": pl.String, "impressions": pl.Float64}
        snapshot = {
            "query": query,
            "category": category,
            "total": query.select(pl.col(LEVEL_NAMES).sum()),
            "user": users,
            "pair": pl.DataFrame(schema=pair_schema) if pairs is None else pairs,
            "behaviour": pl.DataFrame(list(behaviours), schema=behaviour_schema),
        }
        for name, frame in snapshot.items():
            write_part(staging / "snapshot" / name, 0, frame)
        write_json(staging / "parameters.json", MODEL.to_json())
        query.select("query", "category").drop_nulls().write_parquet(staging / "query_category.parquet")
        model = MODEL.to_json()
        return {
            "rows": {name: frame.height for name, frame in snapshot.items()},
            "days": {"mined": [str(DAYS[1])], "kept": [str(DAYS[0])]},
            "relevance_sources": sources or {},
            "parameters": {"click": model["click"], "examination": model["examination"]},
        }

    return run_stage("mine-preferences", out, config=PreferencesConfig(), inputs=inputs, build=build).path


def write_relevance(out: Path, tables: Path | str, pairs: pl.DataFrame) -> Path:
    """Publish a `score-relevance` artifact of pairs with query, item_id, level and source; `expected` is level / 3."""

    def build(staging: Path) -> dict[str, Any]:
        scored = pairs.sort("query", "item_id").select(
            pl.int_range(pl.len(), dtype=pl.Int32).alias("pair"),
            "query",
            "item_id",
            *((pl.col("level") == level).cast(pl.Float32).alias(f"level_{level}") for level in range(4)),
            (pl.col("level") / 3).cast(pl.Float32).alias("expected"),
            "source",
        )
        write_part(staging / "pairs", 0, scored)
        return {}

    return run_stage("score-relevance", out, config=ScoreConfig(), inputs={"tables": tables}, build=build).path


def write_artifacts_of(tables: Path, root: Path) -> tuple[Path, Path]:
    """Relevance and preferences of a simulated log, below `root`.

    Levels are the true grades; the tolerances of users are the true ones, those of queries their opposite.
    """
    log = Tables(tables).impressions()
    grades = pl.read_parquet(tables / "truth" / "impressions" / "*" / "*.parquet", hive_partitioning=False)
    pairs = log.join(grades, on=["request_id", "item_id"]).select("query", "item_id", "grade").unique()
    pairs = pairs.rename({"grade": "level"}).with_columns(source=pl.lit("encoder"))
    relevance = write_relevance(root / "relevance", tables, pairs)
    # As mining, the artifact holds the users and queries of the log only, in an order of its own.
    users, queries = (
        pl.read_parquet(tables / "truth" / f"{name}.parquet").join(log.select(key).unique(), on=key, how="semi")
        for name, key in (("users", "user_id"), ("queries", "query"))
    )
    preferences = write_preferences(
        root / "preferences",
        inputs={"tables": tables, "relevance": relevance},
        queries=[query_row(name, tolerance=-tolerance) for name, tolerance in queries.select("query", "d_q").rows()],
        users=users.sort("t_u").select(
            "user_id",
            pl.lit(1.0).alias("requests"),
            pl.col("t_u").alias("tolerance"),
            pl.lit(0.1).alias("tolerance_sd"),
        ),
        pairs=log.group_by("query", "item_id").len("impressions").with_columns(pl.col("impressions").cast(pl.Float64)),
        sources={"encoder": pairs.height},
        behaviours=[behaviour(log["query"][0], log["user_id"][0], log["item_id"][0], True, 5)],
    )
    return relevance, preferences

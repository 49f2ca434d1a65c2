"""Relevance whose levels are partly the marketplace's true ones, to ask what a better student would bring.

    level distribution <- (1 - share) level distribution + share one-hot(true grade)

for every pair without a judgment that was ever shown or a candidate. Text vectors stay those of the student.
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.artifacts import read_manifest, run_stage
from prectr.core.config import FrozenConfig


class TrueShare(FrozenConfig):
    """Strength of the mixture."""

    share: float
    """Share of the true levels, 0..1."""


def mix_true_levels(tables: Path, relevance: Path, out: Path, share: float) -> None:
    """Copy a relevance artifact to `out` with true levels mixed in; skipped if it is up to date."""

    def build(staging: Path) -> dict[str, Any]:
        grades = _true_grades(tables)
        (staging / "pairs").mkdir()
        for file in sorted((relevance / "pairs").glob("*.parquet")):
            _mixed(pl.read_parquet(file), grades, share).write_parquet(staging / "pairs" / file.name)
        manifest = read_manifest(relevance) or {}
        return {
            name: manifest[name]
            for name in ("rows", "coverage", "order", "level_weights", "labels")
            if name in manifest
        }

    inputs: dict[str, Path | str] = {"tables": tables, "relevance": relevance}
    run_stage("score-relevance", out, config=TrueShare(share=share), inputs=inputs, build=build)


def _true_grades(tables: Path) -> pl.DataFrame:
    """The true grade of each distinct pair that was shown or a candidate: query, item_id, grade."""
    parts = []
    queries = _scan(tables / "impressions").select("request_id", "query").unique()
    for folder in ("impressions", "candidates"):
        rows = _scan(tables / "truth" / folder).select("request_id", "item_id", "grade")
        parts.append(rows.join(queries, on="request_id").select("query", "item_id", "grade").unique())
    return pl.concat(parts).unique(["query", "item_id"]).collect()


def _scan(folder: Path) -> pl.LazyFrame:
    return pl.scan_parquet(folder / "*" / "*.parquet", hive_partitioning=False)


def _mixed(pairs: pl.DataFrame, grades: pl.DataFrame, share: float) -> pl.DataFrame:
    known = pairs.select("query", "item_id", "source").join(
        grades, on=["query", "item_id"], how="left", maintain_order="left"
    )
    grade = known["grade"].fill_null(0).to_numpy()
    weight = np.where(known["grade"].is_not_null() & (known["source"] != "judgment"), share, 0.0)
    levels = pairs.select(LEVEL_COLUMNS).to_numpy() * (1 - weight[:, None])
    levels[np.arange(len(levels)), grade] += weight
    told = (1 - weight) * pairs["encoder_expected"].to_numpy() + weight * grade / 3
    return pairs.with_columns(
        *(pl.Series(name, levels[:, level].astype(np.float32)) for level, name in enumerate(LEVEL_COLUMNS)),
        pl.Series("expected", (levels @ np.arange(4) / 3).astype(np.float32)),
        pl.Series("encoder_expected", told.astype(np.float32)),
    )

"""Coverage: where the relevance of pairs and impressions comes from."""

from pathlib import Path

import polars as pl

from prectr.preferences import mined as snapshot
from prectr.preferences.mined import Preferences
from prectr.relevance.pairs import read_pairs


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

"""Batch scoring of every distinct pair with the encoder, in a pool of Ray Data actors.

A judgment has priority, then the better one of the teacher's label and the encoder's score (`sources`); column `source`
names the one used, and `encoder_expected` always holds the encoder's score. All that follows reads these levels: mined
preferences, features, histories and training targets. So judgments of held-back queries are left out here, once, and
grades of these queries can measure a ranker. This module writes no files.
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.ray_session import memory_bytes
from prectr.data.judgments import split_frame
from prectr.data.tables import Tables, distinct_pairs
from prectr.relevance.config import ScoreConfig
from prectr.relevance.encoder_session import RelevanceEncoder
from prectr.relevance.match_features import MATCH_FEATURES


def pairs_to_score(tables: Tables, labels: Path | None, config: ScoreConfig) -> pl.DataFrame:
    """List every distinct pair of the log, the candidates and the judgments, with levels from a better source.

    Args:
        tables: canonical tables.
        labels: the artifact of `label`, whose levels have priority over the encoder's; None: the encoder has priority.
        config: `look_up`, `held_back_judgments` and `judgment_confidence` decide which levels are known.

    Returns:
        Columns pair int32 (dense, from 0, in the order of query and item_id), query (normalised), item_id, title,
        level_0..3 float32 (null if unknown), source (judgment, teacher, or null).
    """
    judged = tables.judgments()
    known = judged if config.held_back_judgments else _without_held_back(judged)
    logged = distinct_pairs(tables).select("query", "item_id")
    other_level = (1 - config.judgment_confidence) / 3
    known_levels = known.select(
        "query",
        "item_id",
        *(
            pl.when(pl.col("grade") == level)
            .then(config.judgment_confidence)
            .otherwise(other_level)
            .cast(pl.Float32)
            .alias(name)
            for level, name in enumerate(LEVEL_COLUMNS)
        ),
        source=pl.lit("judgment"),
    )
    if labels is not None:
        teacher_levels = pl.read_parquet(labels / "labels.parquet", columns=["query", "item_id", *LEVEL_COLUMNS])
        unjudged = teacher_levels.join(known, on=["query", "item_id"], how="anti")
        known_levels = pl.concat([known_levels, unjudged.with_columns(source=pl.lit("teacher"))])
    if not config.look_up:
        known_levels = known_levels.clear()
    return (
        pl.concat([logged, judged.select("query", "item_id")])
        .unique()
        .join(tables.items().select("item_id", "title"), on="item_id", how="inner")
        .join(known_levels, on=["query", "item_id"], how="left")
        .sort("query", "item_id")
        .with_row_index("pair")
        .with_columns(pl.col("pair").cast(pl.Int32))
    )


def _without_held_back(judged: pl.DataFrame) -> pl.DataFrame:
    held_back = split_frame(judged["query"]).filter(pl.col("split") == "held-back")
    return judged.join(held_back, on="query", how="anti")


class ScorePairs:
    """Ray Data actor that turns a table of `pairs_to_score` into the columns of the relevance artifact."""

    def __init__(self, encoder: Path, config: ScoreConfig) -> None:
        self._encoder = RelevanceEncoder(encoder, config.threads, config.batch_size, config.int8)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Score one block."""
        pairs = pl.DataFrame(batch)
        queries, titles = pairs["query"].to_list(), pairs["title"].to_list()
        probabilities, _, tokens = self._encoder.score(queries, titles)
        assert tokens.match is not None
        scale = np.arange(4, dtype=np.float32) / 3
        is_known = pairs["source"].is_not_null()
        levels = np.where(
            is_known.to_numpy()[:, None], pairs.select(pl.col(LEVEL_COLUMNS).fill_null(0.0)).to_numpy(), probabilities
        ).astype(np.float32)
        arrays: dict[str, Any] = {
            "pair": batch["pair"],
            "query": batch["query"],
            "item_id": batch["item_id"],
            **{name: levels[:, level] for level, name in enumerate(LEVEL_COLUMNS)},
            "expected": levels @ scale,
            "source": pairs["source"].fill_null("encoder").to_arrow(),
            "encoder_expected": probabilities @ scale,
            "input_ids": pa.ListArray.from_arrays(
                pa.array(tokens.offsets, pa.int32()), pa.array(tokens.values, pa.int32())
            ),
            "query_tokens": tokens.query_tokens,
            **{name: tokens.match[:, column] for column, name in enumerate(MATCH_FEATURES)},
        }
        return pa.table(arrays)


def score_pairs(pairs: pl.DataFrame, encoder: Path, config: ScoreConfig) -> Any:
    """Score the pairs with Ray Data; yield Arrow tables with the artifact's columns, in no particular order."""
    import ray.data

    blocks = max(config.least_actors, -(-len(pairs) // config.block_pairs))
    block_rows = -(-len(pairs) // blocks)
    tables = [pairs[start : start + block_rows].to_arrow() for start in range(0, len(pairs), block_rows)]
    scored = ray.data.from_arrow(tables).map_batches(
        ScorePairs,
        fn_constructor_kwargs={"encoder": encoder.resolve(), "config": config},
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=config.least_actors, max_size=config.most_actors),
        num_cpus=config.cpus,
        memory=memory_bytes(config.memory_gib),
    )
    return scored.iter_batches(batch_size=None, batch_format="pyarrow")

"""What the student is trained on: gold of the training queries, and teacher labels outside held-back queries."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.dealing import deal
from prectr.data.judgments import read_judged, split_frame
from prectr.data.tables import Tables


def distillation_pairs(tables: Tables, labels: Path) -> pl.DataFrame:
    """Pairs with gold, a teacher label, or both; held-back queries are not among them.

    Args:
        tables: canonical tables.
        labels: the artifact of `label`.

    Returns:
        columns query, item_id, title, grade int8 (-1 unknown), level_0..3 float32 (null unknown), split (train,
        validation). Validation holds the judged pairs of its queries; their unjudged pairs are left out. Where nothing
        is judged at all, it holds the taught pairs of its queries, the teacher's most probable level as their grade.
    """
    gold = read_judged(tables).select("query", "item_id", "grade")
    teacher = pl.read_parquet(labels / "labels.parquet", columns=["query", "item_id", *LEVEL_COLUMNS])
    pairs = gold.join(teacher, on=["query", "item_id"], how="full", coalesce=True)
    splits = split_frame(pairs["query"])
    if gold.is_empty():
        taught = pl.concat_list(LEVEL_COLUMNS).list.arg_max().cast(pl.Int8)
        pairs = pairs.join(splits.filter(pl.col("split") == "validation"), on="query", how="left").select(
            pl.exclude("split", "grade"), pl.when(pl.col("split").is_not_null()).then(taught).alias("grade")
        )
    return (
        pairs.join(splits, on="query", how="left")
        .filter((pl.col("split") == "train") | ((pl.col("split") == "validation") & pl.col("grade").is_not_null()))
        .join(tables.items().select("item_id", "title"), on="item_id", how="inner")
        .with_columns(pl.col("grade").fill_null(-1))
        .select("query", "item_id", "title", "grade", *LEVEL_COLUMNS, "split")
        .sort("query", "item_id")
    )


@dataclass(frozen=True)
class GroupedBatches:
    """Deals pairs into batches so that pairs of one query meet (for the margin loss) and lengths are similar.

    Each epoch the pairs of a query are shuffled and cut into groups of at most `group_size`; groups are shuffled,
    sorted by their longest pair inside chunks of eight batches, and packed.
    """

    query: np.ndarray
    lengths: np.ndarray
    batch_size: int
    group_size: int

    def epoch(self, generator: np.random.Generator) -> list[np.ndarray]:
        """Batches of row numbers; every row once."""
        rows, group = deal(self.query, self.group_size, generator)
        longest = np.zeros(group[-1] + 1, np.int64)
        np.maximum.at(longest, group, self.lengths[rows])
        place = generator.permutation(len(longest))
        per_chunk = 8 * max(1, self.batch_size // self.group_size)
        order = np.lexsort((longest, place // per_chunk))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        packed = rows[np.argsort(rank[group], kind="stable")]
        batches = [packed[start : start + self.batch_size] for start in range(0, len(packed), self.batch_size)]
        return [batches[index] for index in generator.permutation(len(batches))]

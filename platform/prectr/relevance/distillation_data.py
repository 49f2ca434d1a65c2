"""Training data of the student: judgments of training queries, and teacher labels of all but held-back queries.

The split is `prectr.data.judgments`'; nothing of a held-back query may get in.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.dealing import deal
from prectr.data.judgments import read_judged, split_frame
from prectr.data.tables import Tables


def distillation_pairs(tables: Tables, labels: Path) -> pl.DataFrame:
    """Collect pairs with a judgment, a teacher label, or both, without those of held-back queries.

    Args:
        tables: canonical tables.
        labels: the artifact of `label`.

    Returns:
        Columns query, item_id, title, grade int8 (-1: unknown), level_0..3 float32 (null: unknown), split (train,
        validation). Validation holds only the judged pairs of its queries. If the log has no judgments at all,
        validation holds the labelled pairs of its queries, with the teacher's most probable level as their grade.
    """
    gold = read_judged(tables).select("query", "item_id", "grade")
    teacher = pl.read_parquet(labels / "labels.parquet", columns=["query", "item_id", *LEVEL_COLUMNS])
    pairs = gold.join(teacher, on=["query", "item_id"], how="full", coalesce=True)
    splits = split_frame(pairs["query"])
    if gold.is_empty():
        teacher_grade = pl.concat_list(LEVEL_COLUMNS).list.arg_max().cast(pl.Int8)
        pairs = pairs.join(splits.filter(pl.col("split") == "validation"), on="query", how="left").select(
            pl.exclude("split", "grade"), pl.when(pl.col("split").is_not_null()).then(teacher_grade).alias("grade")
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
    """Batches in which pairs of one query are together (for the margin loss) and lengths are similar.

    In each epoch the pairs of a query are shuffled and cut into groups of at most `group_size`. Groups are shuffled,
    sorted by their longest pair inside chunks of eight batches, and packed into batches.

    Attributes:
        query: int [n], the query of each pair.
        lengths: int [n], tokens of each pair.
        batch_size: pairs of a batch.
        group_size: pairs of one query in a group, at most.
    """

    query: np.ndarray
    lengths: np.ndarray
    batch_size: int
    group_size: int

    def epoch(self, generator: np.random.Generator) -> list[np.ndarray]:
        """Draw the batches of one epoch: arrays of row numbers, every row once."""
        rows, group = deal(self.query, self.group_size, generator)
        longest = np.zeros(group[-1] + 1, np.int64)
        np.maximum.at(longest, group, self.lengths[rows])
        position = generator.permutation(len(longest))
        groups_per_chunk = 8 * max(1, self.batch_size // self.group_size)
        order = np.lexsort((longest, position // groups_per_chunk))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        packed = rows[np.argsort(rank[group], kind="stable")]
        batches = [packed[start : start + self.batch_size] for start in range(0, len(packed), self.batch_size)]
        return [batches[index] for index in generator.permutation(len(batches))]

"""Ids of users, queries or items as features, hashed or by a vocabulary; off by default [ours].

A hash accepts any id, and several ids may share an embedding row. A vocabulary gives a row to each id with enough
impressions on the training days, and 0 (unknown) to the others.
"""

from collections.abc import Sequence
from datetime import date
from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from prectr.core.coding import code_column
from prectr.core.config import FrozenConfig
from prectr.core.text import stable_hash
from prectr.data.tables import Tables, read_day_file
from prectr.features.config import IdConfig


class IdSpace(FrozenConfig):
    """Fitted mapping from the ids of one column to numbers."""

    kind: Literal["hash", "vocabulary"]
    size: int
    values: dict[str, int] = Field(default_factory=dict, description="Numbers of the ids of a vocabulary, from 1.")

    @property
    def cardinality(self) -> int:
        """Number of distinct codes, including 0 (unknown)."""
        return self.size + 1

    def codes(self, column: str, ids: pl.Series) -> np.ndarray:
        """Map ids to numbers: int32 [n], 0 if unknown; a hash knows every id.

        Args:
            column: name of the ids' column, which is part of the hash.
            ids: strings without nulls.
        """
        coded = code_column(ids)
        if self.kind == "hash":
            numbers = [stable_hash(key, column) % self.size + 1 for key in coded.keys]
        else:
            numbers = [self.values.get(key, 0) for key in coded.keys]
        return np.array(numbers, dtype=np.int32)[coded.codes] if len(ids) else np.empty(0, np.int32)


def fit_ids(tables: Tables, days: Sequence[date], column: str, config: IdConfig) -> IdSpace:
    """Fit a column's ids on the training days; a vocabulary keeps the `size` most frequent ids."""
    if config.kind == "hash":
        return IdSpace(kind="hash", size=config.size)
    counts = pl.DataFrame(schema={column: pl.String, "len": pl.UInt32})
    for day in days:
        for file in tables.day_files("impressions", day):
            shown = read_day_file(file, [column]).group_by(column).len()
            counts = pl.concat([counts, shown]).group_by(column).agg(pl.col("len").sum())
    kept = counts.drop_nulls().filter(pl.col("len") >= config.minimum_count)
    kept = kept.sort(pl.col("len"), column, descending=[True, False]).head(config.size)
    values = {value: number for number, value in enumerate(kept[column], start=1)}
    return IdSpace(kind="vocabulary", size=len(values), values=values)

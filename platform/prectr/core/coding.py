"""Dense integer codes for the values of a text column. Grouping, joining and counting work on codes, not on texts."""

from dataclasses import dataclass

import numpy as np
import polars as pl


@dataclass(frozen=True)
class Coded:
    """A column as codes into its distinct values.

    `keys` are the distinct values; `codes` [n] int32 index them. The order of the keys has no meaning.
    """

    codes: np.ndarray
    keys: pl.Series

    def __len__(self) -> int:
        return len(self.keys)

    def mapped(self, values: pl.Series) -> "Coded":
        """Replace key i by `values[i]`; keys with equal values become one key."""
        merged = code_column(values)
        return Coded(merged.codes[self.codes], merged.keys)

    def decoded(self) -> pl.Series:
        """The column as texts [n]."""
        return self.keys.gather(self.codes)


def code_column(column: pl.Series) -> Coded:
    """Code a text column. It hashes each row once, however long the texts are. The column must not hold nulls."""
    categories = column.cast(pl.Categorical(pl.Categories.random()))
    distinct = categories.unique()
    keys = distinct.cast(pl.String).gather(distinct.to_physical().arg_sort())
    return Coded(categories.to_physical().to_numpy().astype(np.int32), keys)


def find_codes(values: pl.Series, keys: pl.Series) -> np.ndarray:
    """Index of each value [m] in `keys` (distinct), int64 [m]; -1 for a value that is not a key."""
    indexed_keys = keys.to_frame("key").with_columns(index=pl.int_range(pl.len(), dtype=pl.Int64))
    rows = values.alias("key").to_frame().join(indexed_keys, on="key", how="left", maintain_order="left")
    return rows["index"].fill_null(-1).to_numpy()


def distinct(codes: np.ndarray, size: int) -> np.ndarray:
    """The distinct values of `codes` [n] in ascending order. All codes must be below `size`."""
    if size > 4 * len(codes):
        return np.unique(codes)
    return np.flatnonzero(np.bincount(codes, minlength=size))

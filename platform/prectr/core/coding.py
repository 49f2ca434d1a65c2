"""Dense integer codes for the values of a text column: what grouping, joining and counting work on."""

from dataclasses import dataclass

import numpy as np
import polars as pl


@dataclass(frozen=True)
class Coded:
    """A column as codes into its distinct values.

    `keys` are the distinct values, `codes` [n] int32 point into them. The order of the keys means nothing.
    """

    codes: np.ndarray
    keys: pl.Series

    def __len__(self) -> int:
        return len(self.keys)

    def mapped(self, values: pl.Series) -> "Coded":
        """The column after each key was replaced by the entry of `values` at its place; equal values become one key."""
        merged = code_column(values)
        return Coded(merged.codes[self.codes], merged.keys)

    def decoded(self) -> pl.Series:
        """The column itself."""
        return self.keys.gather(self.codes)


def code_column(column: pl.Series) -> Coded:
    """Code a text column; one hash a row, whatever the length of the texts. Null must not occur."""
    categories = column.cast(pl.Categorical(pl.Categories.random()))
    distinct = categories.unique()
    keys = distinct.cast(pl.String).gather(distinct.to_physical().arg_sort())
    return Coded(categories.to_physical().to_numpy().astype(np.int32), keys)


def find_codes(wanted: pl.Series, keys: pl.Series) -> np.ndarray:
    """Place of each wanted value in `keys` (distinct), int64 [m]; -1 where it is not there."""
    known = keys.to_frame("key").with_columns(place=pl.int_range(pl.len(), dtype=pl.Int64))
    found = wanted.alias("key").to_frame().join(known, on="key", how="left", maintain_order="left")
    return found["place"].fill_null(-1).to_numpy()


def distinct(codes: np.ndarray, size: int) -> np.ndarray:
    """The distinct values of `codes` [n], ascending; all are below `size`."""
    if size > 4 * len(codes):
        return np.unique(codes)
    return np.flatnonzero(np.bincount(codes, minlength=size))

"""Between Ray Data's Arrow blocks and polars frames."""

import polars as pl
import pyarrow as pa


def to_arrow(frame: pl.DataFrame) -> pa.Table:
    """A frame as an Arrow table of types that every Arrow reader knows (no string views)."""
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def from_arrow(block: pa.Table) -> pl.DataFrame:
    """An Arrow table as a frame."""
    frame = pl.from_arrow(block)
    assert isinstance(frame, pl.DataFrame)
    return frame

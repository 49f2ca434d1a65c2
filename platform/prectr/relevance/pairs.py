"""Reading the relevance artifact: one row for every distinct logged, candidate or judged pair."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl


def read_pairs(relevance: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The scored pairs, in the order of their dense number `pair`.

    Args:
        relevance: a `score-relevance` artifact.
        columns: the columns wanted; all by default.
    """
    wanted = None if columns is None else list(dict.fromkeys(["pair", *columns]))
    return pl.read_parquet(relevance / "pairs" / "*.parquet", columns=wanted).sort("pair")

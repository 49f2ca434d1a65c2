"""Reader of the artifact of `score-relevance`, which holds one row per distinct logged, candidate or judged pair."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl


def read_pairs(relevance: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read the scored pairs in the order of their number `pair`, which is dense from 0.

    Args:
        relevance: an artifact of `score-relevance`.
        columns: columns to read besides `pair`; all by default.
    """
    selected = None if columns is None else list(dict.fromkeys(["pair", *columns]))
    return pl.read_parquet(relevance / "pairs" / "*.parquet", columns=selected).sort("pair")

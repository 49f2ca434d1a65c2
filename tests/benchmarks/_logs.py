"""Logs for benchmarks of mining and sampling: simulated once into a scratch folder, with a made-up relevance.

The folder is PRECTR_BENCH_DIR, where a log that is already there is used again, or a temporary one. No encoder is
trained: a pair's relevance is a hash of its query and item, which costs the stages as much as any other.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from _smallest import MARKETPLACE

from jobs import simulate
from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.artifacts import run_stage
from prectr.core.text import normalise_queries
from prectr.data.marketplace import MarketplaceConfig
from prectr.preferences.tolerance import LATTICE
from prectr.relevance.config import ScoreConfig
from prectr.relevance.match_features import MATCH_FEATURES
from prectr.relevance.sources import level_weights

ROWS_A_REQUEST = 10
SEED = 11


@dataclass(frozen=True)
class Log:
    """A log and its relevance.

    Attributes:
        tables: canonical tables.
        relevance: an artifact as `score-relevance` writes it.
        rows: impressions.
    """

    tables: Path
    relevance: Path
    rows: int

    @property
    def files(self) -> list[str]:
        """The Parquet files of the impressions."""
        return [str(file) for file in sorted(self.tables.glob("impressions/date=*/*.parquet"))]


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """PRECTR_BENCH_DIR, which is kept, or a temporary folder, which is not."""
    given = os.environ.get("PRECTR_BENCH_DIR")
    if given:
        yield Path(given).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="prectr-bench-") as folder:
        yield Path(folder)


def make_log(folder: Path, rows: int, smallest: bool = False) -> Log:
    """A log of `rows` impressions of the `large` marketplace: its users, items, queries and days, whatever the rows.

    With `smallest`, of a marketplace of a few users, items and queries.
    """
    work = folder / f"{'smallest-' if smallest else ''}log-{rows}"
    log = Log(work / "tables", work / "relevance", rows)
    if not log.tables.exists():
        sizes = MARKETPLACE if smallest else {}
        config = MarketplaceConfig(scale="large", seed=SEED, requests=rows // ROWS_A_REQUEST, **sizes)
        simulate.run(out=log.tables, config=config)

    def build(staging: Path) -> dict[str, Any]:
        pairs = hashed_relevance(log)
        (staging / "pairs").mkdir()
        pairs.write_parquet(staging / "pairs" / "part-0.parquet")
        return {"rows": {"pairs": pairs.height}, "level_weights": level_weights({})}

    run_stage("score-relevance", log.relevance, config=ScoreConfig(), inputs={"tables": log.tables}, build=build)
    return log


def hashed_relevance(log: Log) -> pl.DataFrame:
    """All pairs of the log, with all columns that later stages read.

    The expected relevance lies on the lattice that mining rounds to, and the levels are the two next to it, so that
    the expectation over them is exactly the expected relevance.
    """
    shown = pl.scan_parquet(log.files, hive_partitioning=False).select("query", "item_id").unique()
    pairs = shown.collect(engine="streaming")
    normal = pl.col("query").replace_strict(normalise_queries(pairs["query"]), return_dtype=pl.String)
    pairs = pairs.with_columns(normal).unique().sort("query", "item_id")
    steps = (pl.concat_str("query", "item_id").hash(seed=SEED) % (LATTICE + 1)).cast(pl.Float64)
    expected = pairs.select(steps / LATTICE).to_series().to_numpy()
    top = len(LEVEL_COLUMNS) - 1
    levels = np.maximum(0.0, 1.0 - np.abs(top * expected[:, None] - np.arange(top + 1)))
    single = pl.Series("expected", expected, pl.Float32)
    return pairs.select(
        pl.int_range(pl.len(), dtype=pl.Int32).alias("pair"),
        "query",
        "item_id",
        *(pl.Series(name, levels[:, level], pl.Float32) for level, name in enumerate(LEVEL_COLUMNS)),
        single,
        pl.lit("encoder").alias("source"),
        single.alias("encoder_expected"),
        pl.lit([2, 7, 3, 8, 3], pl.List(pl.Int32)).alias("input_ids"),
        pl.lit(3, pl.Int16).alias("query_tokens"),
        *(pl.lit(0.0, pl.Float32).alias(name) for name in MATCH_FEATURES),
    )

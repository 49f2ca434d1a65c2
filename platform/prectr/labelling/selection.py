"""Which pairs the teacher is asked about: judged ones for measurement, then logged ones by exposure and traffic.

Teacher labels must cover head, torso and tail queries and low-ranked, unexposed candidates, not exposures only
(MODEL.md 5). The choice is deterministic: same tables and configuration, same pairs, so an interrupted run continues.
"""

from pathlib import Path

import numpy as np
import polars as pl

from prectr.labelling.config import LabelConfig
from prectr.labelling.split import read_judged
from prectr.tables import Tables, with_normal_query


def select_pairs(tables: Path, config: LabelConfig) -> pl.DataFrame:
    """Choose the pairs to label.

    All judged pairs of validation and held-back queries come first (calibration and measurement need them); judged
    training pairs are left out, because their gold is known. The rest of the budget is split between exposed and
    unexposed pairs, equally over strata; what one cell cannot fill goes to the others.

    Returns:
        columns query (normalised), item_id, title, origin (judged, exposed, unexposed), stratum; by query, item_id.
    """
    judged = read_judged(tables)
    measured = judged.filter(pl.col("split") != "train").sort("split", "query", "item_id").head(config.budget)
    logged = distinct_pairs(tables)
    strata = traffic_strata(logged)
    titles = Tables(tables).items().select("item_id", "title")
    pool = (
        logged.join(judged, on=["query", "item_id"], how="anti")
        .join(titles, on="item_id", how="inner")
        .join(strata, on="query", how="left")
        .with_columns(
            origin=pl.when(pl.col("exposed")).then(pl.lit("exposed")).otherwise(pl.lit("unexposed")),
            stratum=pl.col("stratum").fill_null("tail"),
        )
        .sort("query", "item_id")
    )
    # A random order by a seeded generator: polars' own sampling and hashing may change between its versions.
    order = np.random.default_rng(config.seed).random(len(pool))
    pool = pool.with_columns(order=pl.Series(order)).sort("order")
    chosen = _fill(pool, _quotas(pool, config.budget - len(measured), config.unexposed_share))
    measured = measured.join(strata, on="query", how="left").with_columns(
        origin=pl.lit("judged"), stratum=pl.col("stratum").fill_null("tail")
    )
    columns = ["query", "item_id", "title", "origin", "stratum"]
    return pl.concat([measured.select(columns), chosen.select(columns)]).sort("query", "item_id")


def distinct_pairs(tables: Path) -> pl.DataFrame:
    """Columns query (normalised), item_id, exposed (shown at least once), impressions; one row a distinct pair."""
    source, parts = Tables(tables), []
    for table, exposed in (("impressions", True), ("candidates", False)):
        files = [file for day in source.days(table) for file in source.day_files(table, day)]
        if files:
            counted = (
                pl.scan_parquet(files, hive_partitioning=False)
                .group_by("query", "item_id")
                .agg(impressions=pl.len().cast(pl.Int64) if exposed else pl.lit(0, pl.Int64))
                .collect()
            )
            parts.append(counted.with_columns(exposed=pl.lit(exposed)))
    if not parts:
        return pl.DataFrame(
            schema={"query": pl.String, "item_id": pl.String, "exposed": pl.Boolean, "impressions": pl.Int64}
        )
    return (
        with_normal_query(pl.concat(parts))
        .group_by("query", "item_id")
        .agg(pl.col("exposed").any(), pl.col("impressions").sum())
        .sort("query", "item_id")
    )


def traffic_strata(pairs: pl.DataFrame) -> pl.DataFrame:
    """Columns query, stratum: the most shown queries that make a third of the impressions are head, the next torso."""
    by_query = (
        pairs.group_by("query")
        .agg(pl.col("impressions").sum())
        .sort(["impressions", "query"], descending=[True, False])
    )
    total = max(1, by_query["impressions"].sum())
    before = (pl.col("impressions").cum_sum() - pl.col("impressions")) / total
    return by_query.select(
        "query",
        stratum=pl.when(before < 1 / 3)
        .then(pl.lit("head"))
        .when(before < 2 / 3)
        .then(pl.lit("torso"))
        .otherwise(pl.lit("tail")),
    )


def _quotas(pool: pl.DataFrame, budget: int, unexposed_share: float) -> dict[tuple[str, str], int]:
    """Rows to take per (origin, stratum): the wanted shares, capped by what is there, the rest handed on."""
    available = {
        (origin, stratum): count for origin, stratum, count in pool.group_by("origin", "stratum").len().iter_rows()
    }
    share = {"exposed": 1 - unexposed_share, "unexposed": unexposed_share}
    quotas = dict.fromkeys(available, 0)
    left = max(0, min(budget, sum(available.values())))
    while left > 0:
        open_cells = {cell: share[cell[0]] + 1e-9 for cell in available if quotas[cell] < available[cell]}
        total = sum(open_cells.values())
        granted = 0
        for cell in sorted(open_cells, key=lambda cell: -open_cells[cell]):
            grant = min(available[cell] - quotas[cell], max(1, int(left * open_cells[cell] / total)), left - granted)
            quotas[cell] += grant
            granted += grant
        left -= granted
    return quotas


def _fill(pool: pl.DataFrame, quotas: dict[tuple[str, str], int]) -> pl.DataFrame:
    if not quotas:
        return pool.head(0)
    limits = pl.DataFrame(
        [(origin, stratum, quota) for (origin, stratum), quota in quotas.items()],
        schema={"origin": pl.String, "stratum": pl.String, "quota": pl.Int64},
        orient="row",
    )
    rank = pl.int_range(pl.len()).over("origin", "stratum")
    return pool.join(limits, on=["origin", "stratum"], how="left", maintain_order="left").filter(rank < pl.col("quota"))

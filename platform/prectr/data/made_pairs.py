"""Pairs that no log holds: queries with random items of the catalogue, and with items of the category that they show.

Logged and judged pairs were chosen because they seemed relevant. A model that sees no others does not learn what
irrelevant looks like [ours].
"""

import numpy as np
import polars as pl

from prectr.core.text import stable_hash
from prectr.data.tables import Tables, with_normal_query


def random_pairs(queries: pl.Series, items: pl.DataFrame, count: int, seed: int, use: str) -> pl.DataFrame:
    """Pair queries with items of the whole catalogue.

    A pair is drawn by hashes of its query and of the items. So the same query draws nearly the same items when the
    catalogue or the number of pairs has grown.

    Args:
        queries: distinct queries.
        items: column item_id.
        count: pairs to draw, spread evenly over the queries; a pair that is drawn twice counts once.
        seed: of the draw.
        use: what the pairs are for. Each use draws others, so that no model is asked about what it was trained on.

    Returns:
        Columns query, item_id; distinct.
    """
    return _drawn(
        queries.to_frame("query").with_columns(category=pl.lit("")),
        items.select("item_id", category=pl.lit("")),
        count,
        f"{use} {seed}",
    )


def same_category_pairs(shown: pl.DataFrame, items: pl.DataFrame, count: int, seed: int, use: str) -> pl.DataFrame:
    """Pair queries with items of the category that they show most often.

    Args:
        shown: columns query, item_id, impressions: pairs of the log.
        items: columns item_id and category, null for none.
        count, seed, use: as in `random_pairs`.

    Returns:
        Columns query, item_id; distinct. Queries that show no item with a category get none.
    """
    known = items.select("item_id", "category").drop_nulls()
    categories = (
        shown.join(known, on="item_id")
        .group_by("query", "category")
        .agg(pl.col("impressions").sum())
        .sort("impressions", "category", descending=[True, False])
        .unique("query", keep="first", maintain_order=True)
        .select("query", "category")
    )
    return _drawn(categories, known, count, f"{use} {seed}")


def random_negatives(
    graded: pl.DataFrame, known: pl.DataFrame, tables: Tables, share: float, seed: int, use: str
) -> pl.DataFrame:
    """Random pairs as training pairs of grade 0, for the queries of each split apart.

    Args:
        graded: columns query, split: one row a graded pair.
        known: columns query, item_id: pairs that are left out, as those of the log are.
        tables: canonical tables.
        share: pairs to draw for each graded pair.
        seed, use: as in `random_pairs`.

    Returns:
        Columns query, item_id, split, grade int8.
    """
    items = tables.items()
    drawn = [
        random_pairs(rows["query"].unique(), items, round(share * len(rows)), seed, use).with_columns(
            split=pl.lit(split, pl.String)
        )
        for (split,), rows in graded.group_by("split", maintain_order=True)
    ]
    if not drawn:
        return pl.DataFrame(schema={"query": pl.String, "item_id": pl.String, "split": pl.String, "grade": pl.Int8})
    new = pl.concat(drawn).join(known, on=["query", "item_id"], how="anti")
    return without_logged(new, tables).with_columns(grade=pl.lit(0, pl.Int8))


def without_logged(pairs: pl.DataFrame, tables: Tables) -> pl.DataFrame:
    """Leave out the pairs that impressions show; columns query (normalised) and item_id, kept with all others."""
    files = [file for day in tables.days() for file in tables.day_files("impressions", day)]
    if not files or pairs.is_empty():
        return pairs
    shown = (
        pl.scan_parquet(files, hive_partitioning=False)
        .select("query", "item_id")
        .join(pairs.lazy().select("item_id").unique(), on="item_id", how="semi")
        .unique()
        .collect(engine="streaming")
    )
    return pairs.join(with_normal_query(shown), on=["query", "item_id"], how="anti")


def _drawn(queries: pl.DataFrame, items: pl.DataFrame, count: int, salt: str) -> pl.DataFrame:
    """Draw items of each query's category: columns query, item_id.

    The items of a category lie on a ring, in the order of their hashes; a draw is the item behind a hash of query and
    number of the draw.
    """
    if queries.is_empty() or items.is_empty() or count <= 0:
        return pl.DataFrame(schema={"query": pl.String, "item_id": pl.String})
    ring = items.with_columns(
        pl.Series("place", [stable_hash(salt, item) for item in items["item_id"].to_list()], dtype=pl.UInt64)
    ).sort("category", "place", "item_id")
    order = pl.Series([stable_hash(salt, query) for query in queries["query"].to_list()], dtype=pl.UInt64)
    queries = queries.with_columns(order=order).sort("order", "query")
    number = np.arange(count)
    draws = queries[number % len(queries)].with_columns(draw=pl.Series(number // len(queries)))
    hashes = [stable_hash(salt, query, str(draw)) for query, draw in draws.select("query", "draw").iter_rows()]
    placed = draws.with_columns(pl.Series("place", hashes, dtype=pl.UInt64)).sort("category", "place")
    behind = placed.join_asof(ring, on="place", by="category", strategy="forward", check_sortedness=False)
    first = ring.group_by("category").agg(first=pl.col("item_id").first())
    return (
        behind.join(first, on="category", how="left")
        .select("query", item_id=pl.coalesce("item_id", "first"))
        .drop_nulls()
        .unique()
        .sort("query", "item_id")
    )

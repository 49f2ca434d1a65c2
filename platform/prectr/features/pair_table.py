"""The pair table of a samples artifact: relevance, tokens and match features, and the ids that behaviours name."""

import numpy as np
import polars as pl

from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.features.spec import FeatureSpec


def pair_table(pairs: pl.DataFrame, items: pl.DataFrame, spec: FeatureSpec) -> pl.DataFrame:
    """Add query_bucket, category_id, brand_id, price_bucket and level (1..k) to scored pairs, in their order."""
    joined = pairs.join(
        items.select("item_id", "category", "brand", "price"), on="item_id", how="left", maintain_order="left"
    )
    codes = spec.item_codes(joined)
    queries = joined.select("query").unique()
    buckets = queries.with_columns(
        pl.Series("query_bucket", [spec.query_bucket(query) for query in queries["query"]], dtype=pl.Int32)
    )
    log_price = joined["price"].cast(pl.Float64).clip(lower_bound=0.01).log().fill_null(np.nan).to_numpy()
    levels = joined.select(LEVEL_COLUMNS).to_numpy()
    return (
        joined.drop("category", "brand", "price")
        .join(buckets, on="query", how="left", maintain_order="left")
        .with_columns(
            pl.Series("category_id", codes["category"]),
            pl.Series("brand_id", codes["brand"]),
            pl.Series("price_bucket", spec.price_bucket(log_price)),
            pl.Series("level", (levels.argmax(axis=1) + 1).astype(np.int32)),
        )
    )

"""Quantiles of clicked prices, from histograms over the log-price that can be added.

The upper edge of a bin is 1.1 times its lower edge, so a quantile is off by at most about 5 %.
"""

import numpy as np
import polars as pl

from prectr.core.coding import Coded
from prectr.preferences.shown import ShownRows

BIN = np.log(1.1)
QUANTILES = (0.1, 0.5, 0.9)
QUANTILE_NAMES = tuple(f"price_p{round(100 * quantile)}" for quantile in QUANTILES)


def clicked_prices(rows: ShownRows, category: Coded, log_price: np.ndarray) -> pl.DataFrame:
    """Count clicks by price bin: of (query or category), key, bin int32, clicks int64; sorted.

    Args:
        rows: shown rows.
        category: the categories of their items.
        log_price: [n] NaN where unknown.
    """
    priced = np.flatnonzero(rows.clicked & ~np.isnan(log_price))
    bins = pl.Series("bin", np.floor(log_price[priced] / BIN).astype(np.int32))
    frames = []
    for of, by in (("category", category), ("query", rows.query)):
        clicks = pl.DataFrame([pl.Series("code", by.codes[priced]), bins]).group_by("code", "bin").len("clicks")
        keys = by.keys.gather(clicks["code"]).alias("key")
        frames.append(clicks.select(pl.lit(of).alias("of"), keys, "bin", pl.col("clicks").cast(pl.Int64)))
    return pl.concat(frames).sort("of", "key", "bin")


def quantiles(histogram: pl.DataFrame) -> pl.DataFrame:
    """Compute the price quantiles of each key.

    Args:
        histogram: key, bin and clicks (decayed), one row for each key and bin.

    Returns:
        key and QUANTILE_NAMES: the middle of the bin that holds the quantile, in units of the log's price.
    """
    share = pl.col("clicks").cum_sum().over("key") / pl.col("clicks").sum().over("key")
    ordered = histogram.sort("key", "bin").with_columns(
        share=share, price=(((pl.col("bin") + 0.5) * BIN).exp()).round(4)
    )
    # The last bin's share may differ from 1 by a rounding error, but every quantile is below it.
    return ordered.group_by("key", maintain_order=True).agg(
        pl.col("price").filter(pl.col("share") >= quantile).first().alias(name)
        for quantile, name in zip(QUANTILES, QUANTILE_NAMES, strict=True)
    )

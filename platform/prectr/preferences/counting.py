"""Sums of shown rows by dense codes, in whole numbers; running sums; quantiles of clicked prices.

Mining sums by query, category, item and pair, and `build-samples` sums the rows of one user with the same functions.
So the user's share can be subtracted from a query's sums exactly. Prices are counted in bins of the log-price, which
can be added too; the upper edge of a bin is 1.1 times its lower edge, so a quantile is off by at most about 5 %.
"""

import numpy as np
import polars as pl

from prectr.contracts.model_config import LEVELS
from prectr.core.coding import Coded
from prectr.preferences.shown import ShownRows
from prectr.preferences.tolerance import UNIT, LogLikelihoodTable


def level_sums(
    codes: np.ndarray,
    count: int,
    *,
    cells: np.ndarray,
    level: np.ndarray,
    position: np.ndarray,
    clicked: np.ndarray,
    log_price: np.ndarray,
    table: LogLikelihoodTable,
) -> np.ndarray:
    """Compute the columns LEVEL_NAMES of each key, int64 [count, LEVEL_WIDTH].

    Args:
        codes: [n] key of each row, 0..count-1.
        count: number of keys.
        cells: [n] cells of `table`, with the relevance corrected for the key's tolerance.
        level: [n] relevance level.
        position: [n] from `bounded_position`.
        clicked: [n] bool.
        log_price: [n] NaN where unknown.
        table: the fitted click curve.
    """
    cell, by_level = codes * LEVELS + level, count * LEVELS
    exam = table.examined[position]
    debiased = np.rint(UNIT * UNIT / exam[clicked])
    counts = (
        np.bincount(cell, minlength=by_level),
        np.bincount(cell, weights=exam, minlength=by_level),
        np.bincount(cell[clicked], minlength=by_level),
        np.bincount(cell[clicked], weights=debiased, minlength=by_level),
    )
    # Doubles hold whole numbers exactly below 2^53, and the rows of a part sum to far less.
    return np.concatenate(
        [
            table.sums(codes, count, cells),
            *(part.reshape(count, LEVELS) for part in counts),
            price_sums(codes, count, clicked, log_price),
        ],
        axis=1,
    ).astype(np.int64)


def price_sums(codes: np.ndarray, count: int, clicked: np.ndarray, log_price: np.ndarray) -> np.ndarray:
    """Sum the log-prices of clicks (units of 2^-20) and count the clicks with a known price: int64 [count, 2]."""
    priced = clicked & ~np.isnan(log_price)
    weights = np.rint(log_price[priced] * UNIT)
    sums = np.bincount(codes[priced], weights=weights, minlength=count)
    return np.stack([sums.astype(np.int64), np.bincount(codes[priced], minlength=count)], axis=1)


def examined_and_clicks(
    codes: np.ndarray, count: int, position: np.ndarray, clicked: np.ndarray, table: LogLikelihoodTable
) -> np.ndarray:
    """Sum exam(pos) (units of 2^-20) and count the clicks of each key: int64 [count, 2]."""
    examined = np.bincount(codes, weights=table.examined[position], minlength=count).astype(np.int64)
    return np.stack([examined, np.bincount(codes[clicked], minlength=count)], axis=1)


def sum_by(codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum the rows of `values` [n, w] by `codes` [n], which must cover 0..m-1. Returns [m, w]."""
    if len(codes) == 0:
        return np.zeros((0, values.shape[1]))
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    return np.add.reduceat(values[order], starts, axis=0)


def before_each(codes: np.ndarray, values: np.ndarray, retained: np.ndarray | None = None) -> np.ndarray:
    """Sum the earlier rows with the same code, for each row: float64 [n, w].

    Rows must be sorted by code, then time. The function adds the first rows of all codes, then the second ones, and so
    on. It does not subtract cumulative sums, so that a result does not depend on other rows of the block.

    Args:
        codes: [n], equal codes side by side.
        values: [n, w].
        retained: [n] factor of the sum at each row, below 1 if sums decay with time; 1 by default.
    """
    sums = np.zeros(values.shape)
    if not len(codes):
        return sums
    first = np.r_[True, codes[1:] != codes[:-1]]
    start = np.maximum.accumulate(np.where(first, np.arange(len(codes)), 0))
    rank = np.arange(len(codes)) - start
    by_rank = np.argsort(rank, kind="stable")
    bounds = np.searchsorted(rank[by_rank], np.arange(1, rank.max() + 2))
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        rows = by_rank[low:high]
        sums[rows] = sums[rows - 1] + values[rows - 1]
        if retained is not None:
            sums[rows] *= retained[rows, None]
    return sums


def fading(codes: np.ndarray, day: np.ndarray, half_life: float | None) -> np.ndarray | None:
    """Compute `retained` for `before_each`: 2^(-days since the previous row / half_life); None without a half-life.

    Args:
        codes: [n] sorted.
        day: [n] day numbers, ascending inside a code.
        half_life: days after which a sum counts half; None: no decay.
    """
    if half_life is None or not len(codes):
        return None
    gap = np.r_[0, np.diff(day)] * np.r_[False, codes[1:] == codes[:-1]]
    return np.asarray(np.exp2(-gap / half_life))


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

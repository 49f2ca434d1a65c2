"""Counting shown rows by dense codes, in whole numbers: mining counts by query or item, sampling by a user's own part.

Both count through here, so that a user's part can be taken out of a query's sums exactly.
"""

import numpy as np

from prectr.contracts.model_config import LEVELS
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
    """LEVEL_NAMES by key, int64 [count, LEVEL_WIDTH].

    Args:
        codes: [n] key of each row, 0..count-1.
        count: number of keys.
        cells: [n] of `table`, with the relevance as the key's tolerance sees it.
        level: [n] relevance level.
        position: [n] bounded.
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
    # Sums in doubles are exact below 2^53: a part is far from so many rows.
    return np.concatenate(
        [
            table.sums(codes, count, cells),
            *(part.reshape(count, LEVELS) for part in counts),
            price_sums(codes, count, clicked, log_price),
        ],
        axis=1,
    ).astype(np.int64)


def price_sums(codes: np.ndarray, count: int, clicked: np.ndarray, log_price: np.ndarray) -> np.ndarray:
    """Log-price of clicks in units of 2^-20, and clicks whose price is known: int64 [count, 2]."""
    priced = clicked & ~np.isnan(log_price)
    weights = np.rint(log_price[priced] * UNIT)
    sums = np.bincount(codes[priced], weights=weights, minlength=count)
    return np.stack([sums.astype(np.int64), np.bincount(codes[priced], minlength=count)], axis=1)


def examined_and_clicks(
    codes: np.ndarray, count: int, position: np.ndarray, clicked: np.ndarray, table: LogLikelihoodTable
) -> np.ndarray:
    """Sum of exam(pos) in units of 2^-20, and clicks: int64 [count, 2]."""
    examined = np.bincount(codes, weights=table.examined[position], minlength=count).astype(np.int64)
    return np.stack([examined, np.bincount(codes[clicked], minlength=count)], axis=1)

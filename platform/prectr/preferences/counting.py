"""Sums of shown rows by dense codes, in whole numbers.

Mining sums by query, category, item and pair, and `build-samples` sums the rows of one user with the same functions.
So the user's share can be subtracted from a query's sums exactly.
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

"""Number of distinct users of a query or category before a day, by the k smallest user hashes [Bar-Yossef 2002].

Sets of smallest hashes can be merged over parts and days. The count is exact up to KEPT users. Above, it is estimated
from the largest of the KEPT hashes, with a relative error of about 1 / sqrt(KEPT - 2) (6 %).
"""

from datetime import date

import numpy as np
import polars as pl

from prectr.core.coding import Coded, code_column, distinct
from prectr.preferences.shown import ShownRows

KEPT = 256
"""Hashes stored for a key, at most."""
_HASHES = 2.0**64
_NONE = np.uint64(2**64 - 1)


def seen(rows: ShownRows, by: Coded) -> pl.DataFrame:
    """Compute the smallest user hashes of each key in a part: key, user_hash uint64; sorted.

    Args:
        rows: shown rows.
        by: their queries or categories.
    """
    users = max(len(rows.user), 1)
    pairs = distinct(by.codes.astype(np.int64) * users + rows.user.codes, len(by) * users)
    hashes = rows.user.keys.hash(seed=0)
    return _smallest(
        pl.DataFrame(
            [
                by.keys.gather(pairs // users).alias("key"),
                hashes.gather(pairs % users).alias("user_hash"),
            ]
        )
    )


def counts_before(days: pl.DataFrame) -> pl.DataFrame:
    """Count the distinct users of each key before each day that shows it, and after the last day.

    Args:
        days: key, date, user_hash: the results of `seen` for all days.

    Returns:
        key, date (null: after all days), users float64.
    """
    key = code_column(days["key"])
    coded = days.select("date", "user_hash", pl.Series("key", key.codes)).sort("date", "key", "user_hash")
    smallest = np.full((len(key), KEPT), _NONE)
    counts = []
    for (day,), today in coded.partition_by("date", as_dict=True).items():
        shown, code = np.unique(today["key"].to_numpy(), return_inverse=True)
        counts.append(_counts(key.keys.gather(shown), day, smallest[shown]))
        smallest[shown] = _merged(smallest[shown], code, today["user_hash"].to_numpy())
    counts.append(_counts(key.keys, None, smallest))
    return pl.concat(counts)


def _counts(keys: pl.Series, day: date | None, smallest: np.ndarray) -> pl.DataFrame:
    """Count users from each key's smallest hashes [m, KEPT], ascending and filled up with `_NONE`."""
    hashes = (smallest < _NONE).sum(axis=1)
    estimate = (KEPT - 1) * _HASHES / smallest[:, -1].astype(np.float64)
    users = np.where(hashes < KEPT, hashes, estimate)
    return pl.DataFrame([keys.alias("key"), pl.Series("users", users)]).select(
        "key", pl.lit(day, dtype=pl.Date).alias("date"), "users"
    )


def _merged(smallest: np.ndarray, code: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Add new hashes [n], sorted by (code, hash), to each key's smallest hashes [m, KEPT]."""
    start = np.searchsorted(code, np.arange(len(smallest)))
    rank = np.arange(len(code)) - start[code]
    new = np.full((len(smallest), rank.max() + 1), _NONE)
    new[code, rank] = hashes
    merged = np.sort(np.concatenate([smallest, new], axis=1), axis=1)
    merged[:, 1:][merged[:, 1:] == merged[:, :-1]] = _NONE
    return np.sort(merged, axis=1)[:, :KEPT]


def _smallest(pairs: pl.DataFrame) -> pl.DataFrame:
    ordered = pairs.unique().sort("key", "user_hash")
    return ordered.filter(pl.int_range(pl.len()).over("key") < KEPT)

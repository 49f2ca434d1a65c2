"""How many distinct users a query or category had before a day: the k smallest hashes of its users [Bar-Yossef 2002].

Sets of smallest hashes may be merged over parts and days. Up to KEPT users the count is exact; beyond, it is estimated
from the largest hash kept, with a relative error of about 1 / sqrt(KEPT - 2) (6 %).
"""

from datetime import date

import numpy as np
import polars as pl

from prectr.core.coding import Coded, code_column, distinct
from prectr.preferences.shown import ShownRows

KEPT = 256
_HASHES = 2.0**64
_NONE = np.uint64(2**64 - 1)


def seen(rows: ShownRows, by: Coded) -> pl.DataFrame:
    """The smallest user hashes of each key of a part: key, user_hash uint64; sorted.

    Args:
        rows: shown rows.
        by: their queries or categories.
    """
    users = max(len(rows.user), 1)
    together = distinct(by.codes.astype(np.int64) * users + rows.user.codes, len(by) * users)
    hashes = rows.user.keys.hash(seed=0)
    return _smallest(
        pl.DataFrame(
            [
                by.keys.gather(together // users).alias("key"),
                hashes.gather(together % users).alias("user_hash"),
            ]
        )
    )


def counts_before(days: pl.DataFrame) -> pl.DataFrame:
    """Distinct users of each key before each day that shows it, and in all.

    Args:
        days: key, date, user_hash: what `seen` gave for each day.

    Returns:
        key, date (null: after all days), users float64.
    """
    key = code_column(days["key"])
    coded = days.select("date", "user_hash", pl.Series("key", key.codes)).sort("date", "key", "user_hash")
    known = np.full((len(key), KEPT), _NONE)
    made = []
    for (day,), today in coded.partition_by("date", as_dict=True).items():
        shown, code = np.unique(today["key"].to_numpy(), return_inverse=True)
        made.append(_counted(key.keys.gather(shown), day, known[shown]))
        known[shown] = _merged(known[shown], code, today["user_hash"].to_numpy())
    made.append(_counted(key.keys, None, known))
    return pl.concat(made)


def _counted(keys: pl.Series, day: date | None, smallest: np.ndarray) -> pl.DataFrame:
    """Counts from each key's smallest hashes [m, KEPT], ascending, `_NONE` where there are fewer."""
    kept = (smallest < _NONE).sum(axis=1)
    estimate = (KEPT - 1) * _HASHES / smallest[:, -1].astype(np.float64)
    users = np.where(kept < KEPT, kept, estimate)
    return pl.DataFrame([keys.alias("key"), pl.Series("users", users)]).select(
        "key", pl.lit(day, dtype=pl.Date).alias("date"), "users"
    )


def _merged(known: np.ndarray, code: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """The smallest hashes [m, KEPT] of what was known and of new ones, whose rows are sorted by (code, hash)."""
    start = np.searchsorted(code, np.arange(len(known)))
    place = np.arange(len(code)) - start[code]
    fresh = np.full((len(known), place.max() + 1), _NONE)
    fresh[code, place] = hashes
    together = np.sort(np.concatenate([known, fresh], axis=1), axis=1)
    together[:, 1:][together[:, 1:] == together[:, :-1]] = _NONE
    return np.sort(together, axis=1)[:, :KEPT]


def _smallest(pairs: pl.DataFrame) -> pl.DataFrame:
    ordered = pairs.unique().sort("key", "user_hash")
    return ordered.filter(pl.int_range(pl.len()).over("key") < KEPT)

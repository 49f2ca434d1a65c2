"""How many distinct users typed a query before a day: the k smallest hashes of each query's users [Bar-Yossef 2002].

Sets of smallest hashes may be merged over parts and days. Up to KEPT users the count is exact; beyond, it is estimated
from the largest hash kept, with a relative error of about 1 / sqrt(KEPT - 2) (6 %).
"""

from datetime import date

import numpy as np
import polars as pl

from prectr.coding import code_column
from prectr.preferences.shown import ShownRows

KEPT = 256
_HASHES = 2.0**64
_NONE = np.uint64(2**64 - 1)


def seen(rows: ShownRows, request_rows: np.ndarray) -> pl.DataFrame:
    """The smallest user hashes of each query of a part: query, user_hash uint64; sorted.

    Args:
        rows: shown rows.
        request_rows: one row of each request.
    """
    hashes = rows.user.keys.hash(seed=0)
    pairs = pl.DataFrame(
        [
            rows.query.keys.gather(rows.query.codes[request_rows]).alias("query"),
            hashes.gather(rows.user.codes[request_rows]).alias("user_hash"),
        ]
    ).unique()
    return _smallest(pairs)


def counts_before(days: pl.DataFrame) -> pl.DataFrame:
    """Distinct users of each query before each day on which it was typed, and in all.

    Args:
        days: query, date, user_hash: what `seen` gave for each day.

    Returns:
        query, date (null: after all days), users float64.
    """
    query = code_column(days["query"])
    coded = days.select("date", "user_hash", pl.Series("query", query.codes)).sort("date", "query", "user_hash")
    known = np.full((len(query), KEPT), _NONE)
    made = []
    for (day,), today in coded.partition_by("date", as_dict=True).items():
        typed, code = np.unique(today["query"].to_numpy(), return_inverse=True)
        made.append(_counted(query.keys.gather(typed), day, known[typed]))
        known[typed] = _merged(known[typed], code, today["user_hash"].to_numpy())
    made.append(_counted(query.keys, None, known))
    return pl.concat(made)


def _counted(queries: pl.Series, day: date | None, smallest: np.ndarray) -> pl.DataFrame:
    """Counts from each query's smallest hashes [m, KEPT], ascending, `_NONE` where there are fewer."""
    kept = (smallest < _NONE).sum(axis=1)
    estimate = (KEPT - 1) * _HASHES / smallest[:, -1].astype(np.float64)
    users = np.where(kept < KEPT, kept, estimate)
    return pl.DataFrame([queries.alias("query"), pl.Series("users", users)]).select(
        "query", pl.lit(day, dtype=pl.Date).alias("date"), "users"
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
    ordered = pairs.sort("query", "user_hash")
    return ordered.filter(pl.int_range(pl.len()).over("query") < KEPT)

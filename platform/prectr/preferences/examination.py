"""Examination probability of a position, exam(pos) = pos^-eta, estimated by maximum likelihood [ours].

    clicks at (stratum, pos) ~ Poisson(base_stratum * sum of pos^-eta over the shown rows)

The rate base_stratum accounts for rankings that put better items higher. On the randomised slice the strata are the
relevance levels, and the estimate is unbiased. On logged rows they are the pairs of query and item, because a ranking
policy knows more of an item than its level; what remains is what it knows of a pair at one time or for one user. Where
pairs were not shown at enough positions to tell, the strata are the levels, and the estimate is confounded by what the
policy knows beyond them. The report names the source of the estimate.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.optimize import minimize_scalar

from prectr.preferences.config import PreferencesConfig

MAX_EXPONENT = 3.0
MAX_ERROR = 0.2
"""Largest standard error of an exponent that is estimated pair by pair."""


@dataclass(frozen=True)
class Examination:
    """The fitted examination curve, the source of its estimate and the clicks it was estimated from."""

    exponent: float
    source: str
    clicks: int

    def __call__(self, position: np.ndarray) -> np.ndarray:
        """Compute exam(pos) in (0, 1] for 1-based positions, shape [n]."""
        return np.asarray(position, dtype=np.float64) ** -self.exponent


def examination_counts(
    level: np.ndarray, position: np.ndarray, clicked: np.ndarray, explore: np.ndarray
) -> pl.DataFrame:
    """Count shown rows and clicks by level, position and explored; counts of parts can be added.

    Args:
        level: [n] relevance level.
        position: [n] from 1.
        clicked: [n] bool.
        explore: [n] whether the row belongs to the randomised slice.
    """
    rows = pl.DataFrame({"level": level, "position": position, "explored": explore, "clicked": clicked})
    return rows.group_by("level", "position", "explored").agg(
        pl.len().cast(pl.Int64).alias("shown"), pl.col("clicked").sum().cast(pl.Int64).alias("clicks")
    )


def fit_examination(counts: pl.DataFrame, pairs: pl.DataFrame, config: PreferencesConfig) -> Examination:
    """Estimate the exponent.

    Args:
        counts: results of `examination_counts` of any number of parts.
        pairs: shown rows of whole pairs: query, item_id, position, clicked, rows (how many are equal).
        config: the rows to use.
    """
    if config.examination == "fixed":
        return Examination(config.examination_exponent, "fixed by configuration", 0)
    randomised = counts.filter("explored")
    clicks = int(randomised["clicks"].sum())
    sufficient = clicks >= config.min_randomised_clicks
    if config.examination == "randomised" or (config.examination == "auto" and sufficient):
        strata, source = _by_level(randomised), "randomised slice"
    else:
        strata, source = _by_pair(pairs), "logged rows, pair by pair (no sufficient randomised slice)"
        if strata["clicks"].sum() < config.min_randomised_clicks or _fit_exponent(strata)[1] > MAX_ERROR:
            strata, source = _by_level(counts), "logged rows, level-stratified (no sufficient randomised slice)"
    clicks = int(strata["clicks"].sum())
    if clicks == 0:
        return Examination(config.examination_exponent, "fixed: no clicks to estimate from", 0)
    return Examination(_fit_exponent(strata)[0], source, clicks)


def _by_level(counts: pl.DataFrame) -> pl.DataFrame:
    """Columns stratum, position, shown and clicks; each level is a stratum."""
    cells = counts.group_by("level", "position").agg(pl.col("shown", "clicks").sum()).sort("level", "position")
    return cells.rename({"level": "stratum"})


def _by_pair(pairs: pl.DataFrame) -> pl.DataFrame:
    """The same; each pair that was clicked and shown at several positions is a stratum. The others say nothing."""
    key = ["query", "item_id"]
    cells = pairs.group_by(*key, "position").agg(
        pl.col("rows").sum().cast(pl.Int64).alias("shown"),
        (pl.col("rows") * pl.col("clicked")).sum().cast(pl.Int64).alias("clicks"),
    )
    telling = cells.filter((pl.len().over(key) > 1) & (pl.col("clicks").sum().over(key) > 0)).sort(*key, "position")
    return telling.select(pl.struct(key).rank("dense").alias("stratum"), "position", "shown", "clicks")


def _fit_exponent(strata: pl.DataFrame) -> tuple[float, float]:
    """Fit the exponent of strata with clicks; returns it and its standard error."""
    _, stratum = np.unique(strata["stratum"].to_numpy(), return_inverse=True)
    position, shown, clicks = (strata[name].to_numpy().astype(np.float64) for name in ("position", "shown", "clicks"))
    total_clicks = np.bincount(stratum, clicks)
    logarithm = clicks @ np.log(position)

    def negative_log_likelihood(exponent: float) -> float:
        exposure = np.bincount(stratum, shown * position**-exponent)
        return float(exponent * logarithm + total_clicks @ np.log(exposure))

    fitted = float(minimize_scalar(negative_log_likelihood, bounds=(0.0, MAX_EXPONENT), method="bounded").x)
    exposure = shown * position**-fitted
    mean, square = (
        np.bincount(stratum, exposure * np.log(position) ** power) / np.bincount(stratum, exposure) for power in (1, 2)
    )
    information = float(total_clicks @ (square - mean**2))  # second derivative
    return fitted, max(information, 1e-9) ** -0.5

"""Examination probability of a position, exam(pos) = pos^-eta, estimated by maximum likelihood [ours].

    clicks at (level, pos) ~ Poisson(base_level * sum of pos^-eta over the shown rows)

The rate base_level of each relevance level accounts for rankings that put more relevant items higher. On the randomised
slice the estimate is unbiased. On logged rows it is confounded by what the ranking policy knows beyond the level. The
report names the source of the estimate.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.optimize import minimize_scalar

from prectr.preferences.config import PreferencesConfig

MAX_EXPONENT = 3.0


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


def fit_examination(counts: pl.DataFrame, config: PreferencesConfig) -> Examination:
    """Estimate the exponent.

    Args:
        counts: results of `examination_counts` of any number of parts.
        config: the rows to use.
    """
    if config.examination == "fixed":
        return Examination(config.examination_exponent, "fixed by configuration", 0)
    randomised = counts.filter("explored")
    clicks = int(randomised["clicks"].sum())
    sufficient = clicks >= config.min_randomised_clicks
    if config.examination == "randomised" or (config.examination == "auto" and sufficient):
        source_counts, source = randomised, "randomised slice"
    else:
        source_counts, source = counts, "logged rows, level-stratified (no sufficient randomised slice)"
        clicks = int(counts["clicks"].sum())
    if clicks == 0:
        return Examination(config.examination_exponent, "fixed: no clicks to estimate from", 0)
    return Examination(_fit_exponent(source_counts), source, clicks)


def _fit_exponent(counts: pl.DataFrame) -> float:
    cells = counts.group_by("level", "position").agg(pl.col("shown", "clicks").sum()).sort("level", "position")
    level, position, shown, clicks = (
        cells[name].to_numpy().astype(np.float64) for name in ("level", "position", "shown", "clicks")
    )
    levels = np.unique(level)
    total_clicks = np.array([clicks[level == value].sum() for value in levels])

    def negative_log_likelihood(exponent: float) -> float:
        exposure = shown * position**-exponent
        level_exposure = np.array([exposure[level == value].sum() for value in levels])
        fitted = total_clicks[total_clicks > 0] @ np.log((total_clicks / level_exposure)[total_clicks > 0])
        return float(exponent * (clicks @ np.log(position)) - fitted)

    return float(minimize_scalar(negative_log_likelihood, bounds=(0.0, MAX_EXPONENT), method="bounded").x)

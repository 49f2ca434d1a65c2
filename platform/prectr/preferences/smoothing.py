"""Click rates by relevance level, smoothed towards the rate one level above: query -> category -> whole log.

    rate = (clicks + strength * rate above) / (examined + strength)

Empirical Bayes [ours]: the rates above are estimated from the log, and `strength` is so many examined impressions as
bring `level_smoothing_clicks` clicks on average. Clicks are divided by examined impressions, so a rate is one at the
first position.

The strength is estimated too. A key's rate is drawn from Gamma(shape = level_smoothing_clicks, mean = rate above), its
clicks from Poisson(examined * rate): the posterior mean is the formula above, and the clicks of all keys are negative
binomial, of which `fit_smoothing` maximises the likelihood.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import gammaln

from prectr.preferences.sums import LevelSums

LEAST_SMOOTHING, MOST_SMOOTHING = 0.1, 1000.0


@dataclass(frozen=True)
class LevelRates:
    """Smoothed figures of m keys by level, each [m, k]."""

    rate: np.ndarray
    click_share: np.ndarray
    """Share of the key's clicks that fall on the level; sums to 1."""


def overall_rate(total: LevelSums) -> np.ndarray:
    """[m] clicks per examined impression of the whole log, which a single early click cannot drive far."""
    return np.asarray((total.clicks.sum(1) + 1.0) / (total.examined.sum(1) + 20.0))


def category_rates(category: LevelSums, total: LevelSums, strength: np.ndarray) -> np.ndarray:
    """[m, k] rates of categories, backed off to the whole log; `strength` is [m]."""
    of_total = (total.clicks + 1.0) / (total.examined + 20.0)
    weight = strength[:, None]
    return np.asarray((category.clicks + weight * of_total) / (category.examined + weight))


def query_rates(query: LevelSums, of_category: np.ndarray, strength: np.ndarray) -> LevelRates:
    """Rates and click shares of queries, backed off to their categories' rates [m, k]; `strength` is [m]."""
    weight = strength[:, None]
    clicks = query.clicks.sum(1, keepdims=True)
    share_above = of_category / of_category.sum(1, keepdims=True)
    return LevelRates(
        rate=(query.clicks + weight * of_category) / (query.examined + weight),
        click_share=(query.clicks + share_above) / (clicks + 1.0),
    )


def fit_smoothing(query: LevelSums, of_category: np.ndarray) -> float:
    """The most probable `level_smoothing_clicks`, between LEAST_SMOOTHING and MOST_SMOOTHING.

    Args:
        query: sums of q queries.
        of_category: [q, k] rates of their categories.
    """
    shown = query.examined > 0
    clicks, expected = query.clicks[shown], (query.examined * of_category)[shown]

    def negative_log_likelihood(logarithm: float) -> float:
        shape = np.exp(logarithm)
        of_clicks = gammaln(clicks + shape) - gammaln(shape) + clicks * np.log(expected / (shape + expected))
        return -float((of_clicks + shape * np.log(shape / (shape + expected))).sum())

    bounds = (np.log(LEAST_SMOOTHING), np.log(MOST_SMOOTHING))
    return float(np.exp(minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded").x))

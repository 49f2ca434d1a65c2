"""Click rates by relevance level, smoothed towards the rate one level above: query -> category -> whole log.

    rate = (clicks + prior clicks) / (examined + prior clicks / rate above)

Empirical Bayes [ours]: the rates above are estimated from the log, and so is the strength of the back-off, the prior
clicks of each relevance level. A key's rate is drawn from Gamma(shape = prior clicks, mean = rate above), its clicks
from Poisson(examined * rate): the posterior mean is the formula above, and the clicks of all keys are negative
binomial, of which `fit_prior_clicks` maximises the likelihood. Levels at which all queries are clicked alike are
smoothed strongly, those at which queries differ are not. Clicks are divided by examined impressions: a rate is one at
the first position.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import gammaln

from prectr.preferences.sums import LevelSums

LEAST_PRIOR_CLICKS, MOST_PRIOR_CLICKS = 0.1, 100.0


@dataclass(frozen=True)
class LevelRates:
    """Smoothed figures of m keys by level, each [m, k]."""

    rate: np.ndarray
    click_share: np.ndarray
    """Share of the key's clicks that fall on the level; sums to 1."""


def overall_rate(total: LevelSums) -> np.ndarray:
    """[m] clicks per examined impression of the whole log, which a single early click cannot drive far."""
    return np.asarray((total.clicks.sum(1) + 1.0) / (total.examined.sum(1) + 20.0))


def total_rates(total: LevelSums) -> np.ndarray:
    """[m, k] rates of the whole log, bounded away from zero."""
    return np.asarray((total.clicks + 1.0) / (total.examined + 20.0))


def smoothed_rates(sums: LevelSums, above: np.ndarray, prior_clicks: np.ndarray) -> np.ndarray:
    """[m, k] rates of queries or categories, backed off to the rates `above` them [m, k]; `prior_clicks` is [k]."""
    return np.asarray((sums.clicks + prior_clicks) / (sums.examined + prior_clicks / above))


def level_rates(sums: LevelSums, above: np.ndarray, prior_clicks: np.ndarray) -> LevelRates:
    """Smoothed rates, and click shares, which back off by one click."""
    share_above = above / above.sum(1, keepdims=True)
    return LevelRates(
        rate=smoothed_rates(sums, above, prior_clicks),
        click_share=(sums.clicks + share_above) / (sums.clicks.sum(1, keepdims=True) + 1.0),
    )


def fit_prior_clicks(query: LevelSums, above: np.ndarray) -> np.ndarray:
    """The most probable prior clicks of each level, [k], between LEAST_PRIOR_CLICKS and MOST_PRIOR_CLICKS.

    Args:
        query: sums of q queries.
        above: [q, k] rates of their categories.
    """

    def of_level(level: int) -> float:
        shown = query.examined[:, level] > 0
        clicks, expected = query.clicks[shown, level], (query.examined * above)[shown, level]

        def negative_log_likelihood(logarithm: float) -> float:
            shape = np.exp(logarithm)
            of_clicks = gammaln(clicks + shape) - gammaln(shape) + clicks * np.log(expected / (shape + expected))
            return -float((of_clicks + shape * np.log(shape / (shape + expected))).sum())

        bounds = (np.log(LEAST_PRIOR_CLICKS), np.log(MOST_PRIOR_CLICKS))
        return float(np.exp(minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded").x))

    return np.array([of_level(level) for level in range(query.clicks.shape[1])])

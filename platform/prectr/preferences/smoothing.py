"""Click rates by relevance level, smoothed from query to category to the whole log (back-off).

    rate = (clicks + prior clicks) / (examined + prior clicks / parent rate)

The parent rate of a query is its category's rate, that of a category is the whole log's. Empirical Bayes [ours]: parent
rates are estimated from the log, and so is the strength of the back-off, the prior clicks of each relevance level. A
key's rate is drawn from Gamma(shape = prior clicks, mean = parent rate), its clicks from Poisson(examined * rate). The
posterior mean is the formula above. The clicks of all keys follow a negative binomial distribution;
`fit_prior_clicks` maximises its likelihood. A level is smoothed strongly if all queries have similar rates, and weakly
if they differ. Clicks are divided by examined impressions, so a rate is the click rate at the first position.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import gammaln

from prectr.preferences.sums import LevelSums

LEAST_PRIOR_CLICKS, MOST_PRIOR_CLICKS = 0.1, 100.0


@dataclass(frozen=True)
class LevelRates:
    """Smoothed rates and click shares of m keys by level, each [m, k]."""

    rate: np.ndarray
    click_share: np.ndarray
    """Share of the key's clicks at each level; sums to 1."""


def overall_rate(total: LevelSums) -> np.ndarray:
    """Clicks per examined impression of the whole log, [m], smoothed so that a first click moves it only a little."""
    return np.asarray((total.clicks.sum(1) + 1.0) / (total.examined.sum(1) + 20.0))


def total_rates(total: LevelSums) -> np.ndarray:
    """Rates of the whole log by level, [m, k], above zero."""
    return np.asarray((total.clicks + 1.0) / (total.examined + 20.0))


def smoothed_rates(sums: LevelSums, above: np.ndarray, prior_clicks: np.ndarray) -> np.ndarray:
    """Smooth rates of queries or categories [m, k] towards the parent rates `above` [m, k]; `prior_clicks` is [k]."""
    return np.asarray((sums.clicks + prior_clicks) / (sums.examined + prior_clicks / above))


def level_rates(sums: LevelSums, above: np.ndarray, prior_clicks: np.ndarray) -> LevelRates:
    """Smooth rates, and click shares with one prior click."""
    share_above = above / above.sum(1, keepdims=True)
    return LevelRates(
        rate=smoothed_rates(sums, above, prior_clicks),
        click_share=(sums.clicks + share_above) / (sums.clicks.sum(1, keepdims=True) + 1.0),
    )


def fit_prior_clicks(query: LevelSums, above: np.ndarray) -> np.ndarray:
    """Fit the prior clicks of each level, [k], between LEAST_PRIOR_CLICKS and MOST_PRIOR_CLICKS.

    Args:
        query: sums of q queries.
        above: [q, k] parent rates: those of their categories.
    """

    def fit_level(level: int) -> float:
        shown = query.examined[:, level] > 0
        clicks, expected = query.clicks[shown, level], (query.examined * above)[shown, level]

        def negative_log_likelihood(logarithm: float) -> float:
            shape = np.exp(logarithm)
            click_terms = gammaln(clicks + shape) - gammaln(shape) + clicks * np.log(expected / (shape + expected))
            return -float((click_terms + shape * np.log(shape / (shape + expected))).sum())

        bounds = (np.log(LEAST_PRIOR_CLICKS), np.log(MOST_PRIOR_CLICKS))
        return float(np.exp(minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded").x))

    return np.array([fit_level(level) for level in range(query.clicks.shape[1])])

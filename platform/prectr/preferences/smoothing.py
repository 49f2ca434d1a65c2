"""Click rates, smoothed towards a more general rate (back-off).

    rate = (clicks + prior clicks) / (examined + prior clicks / parent rate)

The parent of a query's rate at a relevance level is its category's rate, that of a category is the whole log's; `RATES`
names the parents of the other kinds of rates. Empirical Bayes [ours]: parent rates are estimated from the log, and so
is the strength of the back-off, the prior clicks of each relevance level and kind. A key's rate is drawn from
Gamma(shape = prior clicks, mean = parent rate), its clicks from Poisson(examined * rate). The posterior mean is the
formula above. The clicks of all keys follow a negative binomial distribution; `fit_strength` maximises its likelihood.
A kind of rate is smoothed strongly if all keys have similar rates, and weakly if they differ. The rate of a user or
query holds the clicks of its own brands, categories or pairs; taken as their known parent rate it would make them look
alike. `fit_strength_below` integrates over it instead. Clicks are divided by examined impressions, so a rate is the
click rate at the first position.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import gammaln, logsumexp

from prectr.preferences.sums import LevelSums

LEAST_PRIOR_CLICKS, MOST_PRIOR_CLICKS = 0.1, 100.0
PRIOR_CLICKS = 2.0
"""Prior clicks where no row tells of them."""
RATES = {"user": "log", "user_brand": "user", "user_category": "user", "query": "log", "item": "log", "pair": "query"}
"""Kinds of rates over all levels, and the kind that each backs off to; `log` is the rate of the whole log. A kind comes
after the one that it backs off to."""
_STEPS = np.arange(-4.0, 4.01, 0.125)
"""Logarithms of a parent's possible rates, from that of its estimate."""


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


def smoothed(clicks: np.ndarray, examined: np.ndarray, above: np.ndarray | float, prior_clicks: float) -> np.ndarray:
    """Smooth rates of keys, [n], towards the parent rates `above`, [n] or one."""
    return np.asarray((clicks + prior_clicks) / (examined + prior_clicks / above))


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
    levels = range(query.clicks.shape[1])
    return np.array([fit_strength(query.clicks[:, level], (query.examined * above)[:, level]) for level in levels])


def fit_strength(clicks: np.ndarray, expected: np.ndarray) -> float:
    """Fit the prior clicks of one kind of rate, between LEAST_PRIOR_CLICKS and MOST_PRIOR_CLICKS.

    Args:
        clicks: [n] clicks of n keys.
        expected: [n] examined impressions times the parent rate. Keys without any say nothing.

    Returns:
        PRIOR_CLICKS if there are no clicks.
    """
    clicks, expected = clicks[expected > 0], expected[expected > 0]
    if not clicks.sum():
        return PRIOR_CLICKS

    def negative_log_likelihood(logarithm: float) -> float:
        shape = np.exp(logarithm)
        click_terms = gammaln(clicks + shape) - gammaln(shape) + clicks * np.log(expected / (shape + expected))
        return -float((click_terms + shape * np.log(shape / (shape + expected))).sum())

    return _most_likely(negative_log_likelihood)


def fit_strength_below(
    clicks: np.ndarray, examined: np.ndarray, parent: np.ndarray, above: float, prior_clicks: float
) -> float:
    """Fit the prior clicks of one kind of rate whose parents are smoothed themselves; bounds as in `fit_strength`.

    A parent's rate is drawn from Gamma(shape = `prior_clicks`, mean = `above`), and the likelihood of its keys' clicks
    is integrated over it. Parents of a single key are left out: their own strength covers all of its difference.

    Args:
        clicks: [n] clicks of n keys.
        examined: [n] examined impressions, above zero.
        parent: [n] number of each key's parent, ascending from 0.
        above: rate that the parents back off to.
        prior_clicks: strength with which they do.

    Returns:
        PRIOR_CLICKS if parents of several keys have no clicks.
    """
    several = (np.bincount(parent) > 1)[parent]
    clicks, examined = clicks[several], examined[several]
    if not clicks.sum():
        return PRIOR_CLICKS
    _, starts, parent = np.unique(parent[several], return_index=True, return_inverse=True)
    total = np.add.reduceat(clicks, starts)
    estimate = smoothed(total, np.add.reduceat(examined, starts), above, prior_clicks)
    expected = examined * estimate[parent]
    # The prior is that of the logarithm of the rate, because the steps are equal there.
    prior = prior_clicks * (_STEPS - estimate[:, None] / above * np.exp(_STEPS))
    weight = prior + total[:, None] * _STEPS

    def negative_log_likelihood(logarithm: float) -> float:
        shape = np.exp(logarithm)
        known = np.add.reduceat(gammaln(clicks + shape) - gammaln(shape) + shape * logarithm, starts)
        terms = [np.add.reduceat((clicks + shape) * np.log(shape + expected * rate), starts) for rate in np.exp(_STEPS)]
        return -float((known + logsumexp(weight - np.stack(terms, axis=1), axis=1)).sum())

    return _most_likely(negative_log_likelihood)


def _most_likely(negative_log_likelihood: Callable[[float], float]) -> float:
    """Minimise a function of the logarithm of prior clicks; returns the clicks."""
    bounds = (np.log(LEAST_PRIOR_CLICKS), np.log(MOST_PRIOR_CLICKS))
    options = {"xatol": 1e-3}
    return float(np.exp(minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded", options=options).x))

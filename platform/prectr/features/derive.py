"""Features that rankers read, computed from sums of earlier rows of user, query, item and pair.

`RawState` is the contract. `build-samples` fills it for logged rows as of their time, serving fills it for a request as
of now, and both call `derive`. So each feature is defined once, and offline features equal online ones by construction.

Clicks are divided by examined impressions (the sum of exam(pos)), so a rate is the click rate at the first position.
Every rate is smoothed towards a more general rate (empirical Bayes [ours]).
"""

from dataclasses import dataclass

import numpy as np

from prectr.contracts.model_config import LEVELS
from prectr.preferences.fit import PreferenceModel
from prectr.preferences.smoothing import level_rates, overall_rate, smoothed, smoothed_rates, total_rates
from prectr.preferences.sums import LevelSums
from prectr.preferences.tolerance import GRID, GRID_SIZE, moments, posterior, predictive

SOURCES = ("judgment", "teacher", "encoder")

NUMERIC = (
    "expected",
    "encoder_expected",
    "judged",
    "taught",
    "log_price",
    "price_known",
    "discount",
    "relative_price",
    "price_above_query",
    "price_above_user",
    "user_rate",
    "user_examined",
    "user_requests",
    "user_brand_rate",
    "user_brand_examined",
    "user_category_rate",
    "user_category_examined",
    "query_rate",
    "query_examined",
    "item_rate",
    "item_examined",
    "pair_rate",
    "pair_examined",
)
TOLERANCE = (
    "user_tolerance",
    "user_tolerance_sd",
    "user_tolerance_count",
    "query_tolerance",
    "query_tolerance_sd",
    "query_tolerance_count",
    "category_tolerance",
    "category_tolerance_sd",
    "category_tolerance_count",
    "threshold",
    "above_user",
    "above_query",
    "above_threshold",
    "predictive_click",
)
TOLERANCE_SLOPE = tuple(1.0 if name.startswith("above_") else 0.0 for name in TOLERANCE)
"""Derivative of each tolerance feature with respect to the row's relevance; 0 for `predictive_click`, not linear."""
RELEVANCE = ("expected", "encoder_expected")
"""The numeric features that are the row's relevance."""
QUERY_PREFERENCE = (
    *(f"level_{level}_rate" for level in range(LEVELS)),
    *(f"level_{level}_click_share" for level in range(LEVELS)),
    *(f"level_{level}_impressions" for level in range(LEVELS)),
    "query_users",
    "backed_off",
)
MATCH_LEVELS = tuple(f"log_level_{level}" for level in range(LEVELS))
_LEAST_PROBABILITY = 1e-4


@dataclass
class RawState:
    """Sums over the rows shown before each of n rows of m requests; zeros if there were none.

    All rows of a request share the sums of user and query, so these arrays have one row for each request.
    """

    request: np.ndarray  # [n] request of each row, 0..m-1
    expected: np.ndarray  # [n] expected level / (k - 1), by the best source
    encoder_expected: np.ndarray  # [n] the same by the distilled encoder alone
    levels: np.ndarray  # [n, k] level probabilities
    source: np.ndarray  # [n] index into SOURCES
    log_price: np.ndarray  # [n] at exposure, NaN where unknown
    log_list_price: np.ndarray  # [n] log-price in the catalogue, NaN where unknown
    relative_price: np.ndarray  # [n] log_price over the median of the item's category, NaN where unknown
    user: np.ndarray  # [m, USER_WIDTH] tolerance grid, requests, examined, clicks
    user_price: np.ndarray  # [m, 2] sum of the clicks' relative prices, priced clicks
    user_brand: np.ndarray  # [n, 2] examined, clicks
    user_category: np.ndarray  # [n, 2] examined, clicks
    query: np.ndarray  # [m, LEVEL_WIDTH], without the request's own user
    query_users: np.ndarray  # [m] distinct users of the query, without the request's own user
    category: np.ndarray  # [c, LEVEL_WIDTH] sums of c categories
    category_of: np.ndarray  # [n] row of `category` that each row's item belongs to
    total: np.ndarray  # [m, LEVEL_WIDTH] sums of the whole log
    item: np.ndarray  # [n, 2] examined, clicks
    pair: np.ndarray  # [n, 2] examined, clicks, without the row's own user
    query_prior: np.ndarray  # [m, G] tolerance prior of the query by its category


def derive(state: RawState, model: PreferenceModel) -> dict[str, dict[str, np.ndarray]]:
    """Compute all features of n rows, unscaled.

    Returns:
        group -> feature name -> [n]. The groups are `numeric`, `tolerance`, `query_preference` and `match`. `match`
        holds the level log-probabilities only; the lexical match features are stored with the pair.
    """
    query, category, total = (LevelSums.split(sums) for sums in (state.query, state.category, state.total))
    overall = overall_rate(total)
    request = state.request

    def rate(kind: str, sums: np.ndarray, above: np.ndarray) -> np.ndarray:
        """Divide clicks by examined impressions, smoothed towards `above`; `sums` is [.., 2] examined, clicks."""
        return smoothed(sums[:, 1], sums[:, 0], above, model.rate_prior_clicks[kind])

    query_sums = np.stack([query.examined.sum(1), query.clicks.sum(1)], axis=1)
    user_rate = rate("user", state.user[:, GRID_SIZE + 1 :], overall)
    query_rate = rate("query", query_sums, overall)
    price_known = ~np.isnan(state.log_price)
    numeric = {
        "expected": state.expected,
        "encoder_expected": state.encoder_expected,
        "judged": (state.source == SOURCES.index("judgment")).astype(np.float64),
        "taught": (state.source == SOURCES.index("teacher")).astype(np.float64),
        "log_price": np.where(price_known, state.log_price, 0.0),
        "price_known": price_known.astype(np.float64),
        "discount": np.nan_to_num(state.log_list_price - state.log_price),
        "relative_price": np.nan_to_num(state.relative_price),
        "price_above_query": _above_mean(state.log_price, query.log_price[request], query.priced_clicks[request]),
        "price_above_user": _above_mean(state.relative_price, *state.user_price[request].T),
        "user_rate": np.log(user_rate)[request],
        "user_examined": np.log1p(state.user[:, GRID_SIZE + 1])[request],
        "user_requests": np.log1p(state.user[:, GRID_SIZE])[request],
        "user_brand_rate": np.log(rate("user_brand", state.user_brand, user_rate[request])),
        "user_brand_examined": np.log1p(state.user_brand[:, 0]),
        "user_category_rate": np.log(rate("user_category", state.user_category, user_rate[request])),
        "user_category_examined": np.log1p(state.user_category[:, 0]),
        "query_rate": np.log(query_rate)[request],
        "query_examined": np.log1p(query_sums[:, 0])[request],
        "item_rate": np.log(rate("item", state.item, overall[request])),
        "item_examined": np.log1p(state.item[:, 0]),
        "pair_rate": np.log(rate("pair", state.pair, query_rate[request])),
        "pair_examined": np.log1p(state.pair[:, 0]),
    }
    assert tuple(numeric) == NUMERIC
    return {
        "numeric": numeric,
        "match": level_logarithms(state.levels),
        "tolerance": _tolerance(state, query, category, model),
        "query_preference": _query_preference(state, query, category, total, model.level_prior_clicks),
    }


def level_logarithms(levels: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the first columns of the `match` group: log-probabilities of levels [n, k], bounded from below."""
    bounded = np.log(np.maximum(levels, _LEAST_PROBABILITY))
    return {name: bounded[:, level] for level, name in enumerate(MATCH_LEVELS)}


def history_counts(user_clicks: np.ndarray, query_behaviours: np.ndarray) -> np.ndarray:
    """Compute log1p of the numbers of behaviours in S_u and S_q, [n, 2]."""
    return np.log1p(np.stack([user_clicks, query_behaviours], axis=1).astype(np.float32))


def _above_mean(log_price: np.ndarray, total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Difference between a log-price and the mean log-price of the clicks; 0 if either is unknown."""
    mean = total / np.maximum(count, 1.0)
    return np.where((count > 0) & ~np.isnan(log_price), np.nan_to_num(log_price) - mean, 0.0)


def _tolerance(state: RawState, query: LevelSums, category: LevelSums, model: PreferenceModel) -> dict[str, np.ndarray]:
    """Compute posterior means, deviations and counts, and the row's relevance minus the means [ours]."""
    request, category_row = state.request, state.category_of
    user_posterior = posterior(state.user[:, :GRID_SIZE], model.user_prior)
    user_mean, user_sd = moments(user_posterior)
    query_mean, query_sd = moments(posterior(query.grid, state.query_prior))
    category_mean, category_sd = moments(posterior(category.grid, model.query_prior))
    query_shift = query_mean - model.query_centre
    threshold = np.clip(user_mean + query_shift, GRID[0], GRID[-1])
    features = {
        "user_tolerance": user_mean[request],
        "user_tolerance_sd": user_sd[request],
        "user_tolerance_count": np.log1p(state.user[:, GRID_SIZE + 1])[request],
        "query_tolerance": query_mean[request],
        "query_tolerance_sd": query_sd[request],
        "query_tolerance_count": np.log1p(query.examined.sum(1))[request],
        "category_tolerance": category_mean[category_row],
        "category_tolerance_sd": category_sd[category_row],
        "category_tolerance_count": np.log1p(category.examined.sum(1))[category_row],
        "threshold": threshold[request],
        "above_user": state.expected - user_mean[request],
        "above_query": state.expected - query_mean[request],
        "above_threshold": state.expected - threshold[request],
        "predictive_click": np.log(
            predictive(user_posterior[request], state.expected - query_shift[request], model.click)
        ),
    }
    assert tuple(features) == TOLERANCE
    return features


def _query_preference(
    state: RawState, query: LevelSums, category: LevelSums, total: LevelSums, prior_clicks: np.ndarray
) -> dict[str, np.ndarray]:
    """Compute g_q: for each level the smoothed rate (query -> category -> whole log), click share and impressions.

    The query backs off to the category of the row's item.
    """
    request, category_row = state.request, state.category_of
    category_rates = smoothed_rates(category.rows(category_row), total_rates(total.rows(request)), prior_clicks)
    rates = level_rates(query.rows(request), category_rates, prior_clicks)
    features = {f"level_{level}_rate": np.log(rates.rate[:, level]) for level in range(LEVELS)}
    features |= {f"level_{level}_click_share": rates.click_share[:, level] for level in range(LEVELS)}
    features |= {
        f"level_{level}_impressions": np.log1p(query.impressions[:, level])[request] for level in range(LEVELS)
    }
    features |= {
        "query_users": np.log1p(state.query_users)[request],
        "backed_off": (query.clicks.sum(1) == 0).astype(np.float64)[request],
    }
    assert tuple(features) == QUERY_PREFERENCE
    return features

"""From what is known of user, query, item and pair at a moment to the numbers that rankers read.

`RawState` is the contract: build-samples fills it for logged rows as of their time, serving fills it for a request as
of now, and both call `derive`. So a feature exists once, and offline equals online by construction.

Clicks are divided by examined impressions (the sum of exam(pos)), so every rate is one "at the first position", and
every rate is smoothed towards the one above it (empirical Bayes [ours]).
"""

from dataclasses import dataclass

import numpy as np

from prectr.model_config import LEVELS
from prectr.preferences.aggregates import LevelSums
from prectr.preferences.fit import PreferenceModel
from prectr.preferences.tolerance import GRID, GRID_SIZE, moments, posterior, predictive

SOURCES = ("judgment", "teacher", "encoder")

NUMERIC = (
    "expected",
    "encoder_expected",
    "judged",
    "taught",
    "log_price",
    "price_known",
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
"""Change of each number when the row's relevance rises by one; of the predictive click it is left out (not linear)."""
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
    """What was known before each of n rows. Sums are additive over earlier shown rows; zeros mean nothing was known."""

    expected: np.ndarray  # [n] expected level / (k - 1), by the best source
    encoder_expected: np.ndarray  # [n] the same by the distilled encoder alone
    levels: np.ndarray  # [n, k] level probabilities
    source: np.ndarray  # [n] index into SOURCES
    log_price: np.ndarray  # [n] NaN where unknown
    user: np.ndarray  # [n, USER_WIDTH] tolerance grid, requests, exam, clicks
    user_price: np.ndarray  # [n, 2] log-price sum of clicks, priced clicks
    user_brand: np.ndarray  # [n, 2] exam, clicks
    user_category: np.ndarray  # [n, 2] exam, clicks
    query: np.ndarray  # [n, LEVEL_WIDTH], without the row's own user
    category: np.ndarray  # [n, LEVEL_WIDTH] of the item's category
    total: np.ndarray  # [n, LEVEL_WIDTH] of the whole log
    item: np.ndarray  # [n, 3] impressions, exam, clicks
    pair: np.ndarray  # [n, 3], without the row's own user
    query_prior: np.ndarray  # [n, G] tolerance prior of the query, by its category


def derive(state: RawState, model: PreferenceModel, smoothing_clicks: float) -> dict[str, dict[str, np.ndarray]]:
    """All features of n rows, unscaled.

    Returns:
        group -> feature name -> [n]; the groups are `numeric`, `tolerance`, `query_preference` and `match` (the level
        log-probabilities only; the lexical match features belong to the pair and come with it).
    """
    query, category, total = (LevelSums.split(sums) for sums in (state.query, state.category, state.total))
    overall = (total.clicks.sum(1) + 1.0) / (total.examined.sum(1) + 20.0)
    strength = smoothing_clicks / overall

    def rate(clicks: np.ndarray, examined: np.ndarray, above: np.ndarray) -> np.ndarray:
        return (clicks + strength * above) / (examined + strength)

    user_rate = rate(state.user[:, GRID_SIZE + 2], state.user[:, GRID_SIZE + 1], overall)
    query_rate = rate(query.clicks.sum(1), query.examined.sum(1), overall)
    item_rate = rate(state.item[:, 2], state.item[:, 1], overall)
    price_known = ~np.isnan(state.log_price)
    numeric = {
        "expected": state.expected,
        "encoder_expected": state.encoder_expected,
        "judged": (state.source == SOURCES.index("judgment")).astype(np.float64),
        "taught": (state.source == SOURCES.index("teacher")).astype(np.float64),
        "log_price": np.where(price_known, state.log_price, 0.0),
        "price_known": price_known.astype(np.float64),
        "price_above_query": _above_mean(state.log_price, query.log_price, query.priced_clicks),
        "price_above_user": _above_mean(state.log_price, state.user_price[:, 0], state.user_price[:, 1]),
        "user_rate": np.log(user_rate),
        "user_examined": np.log1p(state.user[:, GRID_SIZE + 1]),
        "user_requests": np.log1p(state.user[:, GRID_SIZE]),
        "user_brand_rate": np.log(rate(state.user_brand[:, 1], state.user_brand[:, 0], user_rate)),
        "user_brand_examined": np.log1p(state.user_brand[:, 0]),
        "user_category_rate": np.log(rate(state.user_category[:, 1], state.user_category[:, 0], user_rate)),
        "user_category_examined": np.log1p(state.user_category[:, 0]),
        "query_rate": np.log(query_rate),
        "query_examined": np.log1p(query.examined.sum(1)),
        "item_rate": np.log(item_rate),
        "item_examined": np.log1p(state.item[:, 1]),
        "pair_rate": np.log(rate(state.pair[:, 2], state.pair[:, 1], query_rate)),
        "pair_examined": np.log1p(state.pair[:, 1]),
    }
    assert tuple(numeric) == NUMERIC
    return {
        "numeric": numeric,
        "match": level_logarithms(state.levels),
        "tolerance": _tolerance(state, query, category, model),
        "query_preference": _query_preference(query, category, total, strength),
    }


def level_logarithms(levels: np.ndarray) -> dict[str, np.ndarray]:
    """The first columns of the `match` group: log-probabilities of level distributions [n, k], bounded below."""
    bounded = np.log(np.maximum(levels, _LEAST_PROBABILITY))
    return {name: bounded[:, level] for level, name in enumerate(MATCH_LEVELS)}


def history_counts(user_clicks: np.ndarray, query_behaviours: np.ndarray) -> np.ndarray:
    """[n, 2]: log1p of how many behaviours S_u and S_q hold."""
    return np.log1p(np.stack([user_clicks, query_behaviours], axis=1).astype(np.float32))


def _above_mean(log_price: np.ndarray, total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """How much dearer than what was clicked, on the log scale; 0 where either price is unknown."""
    mean = total / np.maximum(count, 1.0)
    return np.where((count > 0) & ~np.isnan(log_price), np.nan_to_num(log_price) - mean, 0.0)


def _tolerance(state: RawState, query: LevelSums, category: LevelSums, model: PreferenceModel) -> dict[str, np.ndarray]:
    """Posterior means, deviations and counts, and where the row's relevance lies from them [ours, MODEL.md 3a]."""
    user_posterior = posterior(state.user[:, :GRID_SIZE], model.user_prior)
    user_mean, user_sd = moments(user_posterior)
    query_mean, query_sd = moments(posterior(query.grid, state.query_prior))
    category_mean, category_sd = moments(posterior(category.grid, model.query_prior))
    query_shift = query_mean - model.query_centre
    threshold = np.clip(user_mean + query_shift, GRID[0], GRID[-1])
    made = {
        "user_tolerance": user_mean,
        "user_tolerance_sd": user_sd,
        "user_tolerance_count": np.log1p(state.user[:, GRID_SIZE + 1]),
        "query_tolerance": query_mean,
        "query_tolerance_sd": query_sd,
        "query_tolerance_count": np.log1p(query.examined.sum(1)),
        "category_tolerance": category_mean,
        "category_tolerance_sd": category_sd,
        "category_tolerance_count": np.log1p(category.examined.sum(1)),
        "threshold": threshold,
        "above_user": state.expected - user_mean,
        "above_query": state.expected - query_mean,
        "above_threshold": state.expected - threshold,
        "predictive_click": np.log(predictive(user_posterior, state.expected - query_shift, model.click)),
    }
    assert tuple(made) == TOLERANCE
    return made


def _query_preference(
    query: LevelSums, category: LevelSums, total: LevelSums, strength: np.ndarray
) -> dict[str, np.ndarray]:
    """g_q: per level the smoothed rate (query -> category -> whole log), share of clicks and impressions."""
    weight = strength[:, None]
    of_total = (total.clicks + 1.0) / (total.examined + 20.0)
    of_category = (category.clicks + weight * of_total) / (category.examined + weight)
    of_query = (query.clicks + weight * of_category) / (query.examined + weight)
    clicks = query.clicks.sum(1, keepdims=True)
    share_above = of_category / of_category.sum(1, keepdims=True)
    share = (query.clicks + share_above) / (clicks + 1.0)
    made = {f"level_{level}_rate": np.log(of_query[:, level]) for level in range(LEVELS)}
    made |= {f"level_{level}_click_share": share[:, level] for level in range(LEVELS)}
    made |= {f"level_{level}_impressions": np.log1p(query.impressions[:, level]) for level in range(LEVELS)}
    made |= {"query_users": np.log1p(query.users), "backed_off": (clicks[:, 0] == 0).astype(np.float64)}
    assert tuple(made) == QUERY_PREFERENCE
    return made

"""The back-off of click rates: the fit recovers the known strength that clicks were drawn with."""

import numpy as np
import pytest

from prectr.preferences.smoothing import (
    LEAST_PRIOR_CLICKS,
    MOST_PRIOR_CLICKS,
    PRIOR_CLICKS,
    fit_prior_clicks,
    fit_strength,
    fit_strength_below,
    smoothed_rates,
)
from prectr.preferences.sums import LEVEL_WIDTH, LevelSums
from prectr.preferences.tolerance import GRID_SIZE

RATES = np.array([0.01, 0.03, 0.08, 0.15])


def _drawn(shape: np.ndarray, queries: int = 2500, seed: int = 0) -> LevelSums:
    """Queries whose rates at each level are drawn from Gamma(shape, mean = RATES); inf: all have RATES."""
    rng = np.random.default_rng(seed)
    examined = rng.exponential(250, (queries, 4))
    finite = np.where(np.isinf(shape), 1.0, shape)
    rate = np.where(np.isinf(shape), RATES, rng.gamma(finite, RATES / finite, (queries, 4)))
    sums = np.zeros((queries, LEVEL_WIDTH))
    sums[:, GRID_SIZE + 4 : GRID_SIZE + 8] = examined
    sums[:, GRID_SIZE + 8 : GRID_SIZE + 12] = rng.poisson(examined * rate)
    return LevelSums.split(sums)


@pytest.mark.parametrize("shape", [[0.5, 3.0, 8.0, 20.0], [20.0, 1.0, 1.0, 3.0]])
def test_prior_clicks_of_each_level_are_recovered(shape: list[float]) -> None:
    prior_clicks = fit_prior_clicks(_drawn(np.array(shape)), np.tile(RATES, (2500, 1)))
    np.testing.assert_allclose(prior_clicks, shape, rtol=0.3)


def test_levels_at_which_queries_do_not_differ_are_smoothed_as_much_as_may_be() -> None:
    prior_clicks = fit_prior_clicks(_drawn(np.array([np.inf, 0.02, np.inf, 2.0])), np.tile(RATES, (2500, 1)))
    assert prior_clicks[2] > MOST_PRIOR_CLICKS / 2
    assert prior_clicks[1] == pytest.approx(LEAST_PRIOR_CLICKS, rel=0.1)


@pytest.mark.parametrize("rows", [20, 400])
@pytest.mark.parametrize("shape", [1.0, 5.0])
def test_strength_below_users_of_few_rows_is_recovered(rows: int, shape: float) -> None:
    """With few rows a user's rate is mostly that of its own categories: taken as known, it makes them look alike."""
    rng = np.random.default_rng(1)
    of_user = rng.gamma(4.0, 0.1 / 4.0, 3000)
    examined = rows * rng.dirichlet(np.full(4, 1.0), 3000) + 1e-3
    clicks = rng.poisson(examined * rng.gamma(shape, of_user[:, None] / shape, examined.shape)).astype(float)
    parent = np.repeat(np.arange(3000), 4)
    strength = fit_strength_below(clicks.ravel(), examined.ravel(), parent, 0.1, 4.0)
    assert strength == pytest.approx(shape, rel=0.35)
    user_rate = (clicks.sum(1) + 4.0) / (examined.sum(1) + 40.0)
    assert fit_strength(clicks.ravel(), (examined * user_rate[:, None]).ravel()) > 1.5 * shape


def test_rows_that_say_nothing_leave_the_usual_strength() -> None:
    none, five = np.zeros(0), np.full(5, 3.0)
    assert fit_strength(none, none) == fit_strength(0 * five, five) == PRIOR_CLICKS
    assert fit_strength_below(none, none, np.zeros(0, np.int64), 0.1, 2.0) == PRIOR_CLICKS
    assert fit_strength_below(five, five, np.arange(5), 0.1, 2.0) == PRIOR_CLICKS, "each parent has one key"
    assert fit_strength_below(0 * five, five, np.zeros(5, np.int64), 0.1, 2.0) == PRIOR_CLICKS, "no clicks"
    alone = np.array([0, 1, 1, 1, 2])  # parents of one key beside another one
    strengths = [
        fit_strength_below(five[kept], np.arange(1.0, 6.0)[kept], parent, 0.1, 2.0)
        for kept, parent in ((slice(None), alone), (slice(1, 4), np.zeros(3, np.int64)))
    ]
    assert strengths[0] == strengths[1]


def test_smoothed_rates_by_hand() -> None:
    query = _drawn(np.full(4, 3.0), queries=1)
    clicks = np.array([1.0, 2.0, 3.0, 4.0])
    expected = (query.clicks[0] + clicks) / (query.examined[0] + clicks / RATES)
    np.testing.assert_allclose(smoothed_rates(query, RATES[None, :], clicks)[0], expected)

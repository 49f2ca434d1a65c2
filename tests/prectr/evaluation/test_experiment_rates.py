"""Simulated A/A experiments: how often a test finds a difference that does not exist, and what daily looks do."""

import numpy as np
import pytest
from scipy.stats import binom

from prectr.evaluation.experiments.analysis import DrawnDifference, always_valid_reach, mixture_variance
from prectr.evaluation.experiments.cuped import UserSums, adjust
from prectr.evaluation.experiments.ratio import Difference, Moments, Ratio
from prectr.evaluation.experiments.resplit import false_positives, row_level_p_value
from prectr.metrics.bootstrap import percentile_interval, resample

EXPERIMENTS = 2000
LOWEST, HIGHEST = (binom.ppf(share, EXPERIMENTS, 0.05) / EXPERIMENTS for share in (0.0005, 0.9995))
"""Between these lies, 999 times in 1,000, the rate of a test that errs in 5 % of the experiments."""


def heavy_users(random: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Clicks and impressions: some users come a hundred times as often as others, and each has a rate of their own."""
    impressions = np.ceil(10 * np.minimum(random.pareto(1.7, shape) + 0.1, 40))
    rate = random.beta(0.8, 12, shape)
    return random.binomial(impressions.astype(int), rate).astype(float), impressions


def test_ctr_by_users_errs_as_promised_and_by_rows_far_too_often() -> None:
    random = np.random.default_rng(3)
    clicks, impressions = heavy_users(random, (EXPERIMENTS, 2, 400))
    pair = [Moments.of(clicks[:, variant], impressions[:, variant]) for variant in range(2)]
    by_users = Difference.of(*map(Ratio.of, pair)).p_value < 0.05
    assert LOWEST < by_users.mean() < HIGHEST
    assert (row_level_p_value(*pair) < 0.05).mean() > 0.2


@pytest.mark.parametrize("relative", [False, True])
def test_intervals_of_a_mean_cover_the_truth(relative: bool) -> None:
    random = np.random.default_rng(4)
    orders = random.poisson(random.gamma(0.5, 0.6, (EXPERIMENTS, 2, 500))).astype(float)
    pair = [Ratio.of(Moments.of(orders[:, variant], np.ones((EXPERIMENTS, 500)))) for variant in range(2)]
    difference = Difference.relative(*pair) if relative else Difference.of(*pair)
    missed = np.abs(difference.value) > difference.reach(0.95)
    assert LOWEST < missed.mean() < HIGHEST


def test_cuped_keeps_the_rate_and_takes_out_noise() -> None:
    """Users have an activity and a click rate of their own, before and during the experiment."""
    random = np.random.default_rng(5)
    missed: dict[str, list[bool]] = {"mean": [], "ratio": []}
    reductions: dict[str, list[float]] = {"mean": [], "ratio": []}
    ones = np.ones(300)
    for _ in range(EXPERIMENTS):
        activity, rate = random.gamma(1.0, 1.0, 300), random.beta(1.0, 5.0, 300)
        rows = [random.poisson(10 * activity) + 5 for _ in range(2)]
        clicks = [random.binomial(shown, rate).astype(float) for shown in rows]
        orders = [random.poisson(activity).astype(float) for _ in range(2)]
        treated = random.random(300) < 0.5
        for name, (before, during) in {
            "mean": [UserSums(values, ones) for values in orders],
            "ratio": [UserSums(values, shown.astype(float)) for values, shown in zip(clicks, rows)],
        }.items():
            adjusted = adjust(during, before, treated)
            missed[name].append(adjusted.difference.p_value < 0.05)
            reductions[name].append(adjusted.variance_reduction)
    for name, wrong in missed.items():
        assert LOWEST < np.mean(wrong) < HIGHEST, name
    # Poisson noise on a Gamma(1, 1) rate: correlation 1/2, so a quarter of the variance.
    assert np.mean(reductions["mean"]) == pytest.approx(0.25, abs=0.03)
    assert np.mean(reductions["ratio"]) > 0.4


def test_cuped_finds_the_same_effect() -> None:
    random = np.random.default_rng(6)
    activity = random.gamma(1.0, 1.0, 40_000)
    treated = random.random(40_000) < 0.5
    during = UserSums(random.poisson(activity * (1 + 0.3 * treated)).astype(float), np.ones(40_000))
    adjusted = adjust(during, UserSums(random.poisson(activity).astype(float), np.ones(40_000)), treated)
    assert adjusted.difference.value == pytest.approx(0.3, abs=4 * adjusted.difference.standard_error)
    assert adjusted.difference.standard_error < 0.02


def peeked(days: int, arriving: bool) -> tuple[float, float]:
    """Shares of A/A experiments in which some day's fixed or always-valid interval leaves zero out.

    Arriving: every day brings other users. Else the same users come every day with outcomes of their own rate.
    """
    random = np.random.default_rng(7)
    users = 100
    wrong_fixed, wrong_valid = np.zeros(EXPERIMENTS, bool), np.zeros(EXPERIMENTS, bool)
    rate = random.gamma(2.0, 0.05, (EXPERIMENTS, 2, users))
    total = np.zeros((EXPERIMENTS, 2, 0)) if arriving else np.zeros((EXPERIMENTS, 2, users))
    for _ in range(days):
        fresh = random.gamma(2.0, 0.05, (EXPERIMENTS, 2, users)) if arriving else rate
        outcome = random.poisson(fresh).astype(float)
        total = np.concatenate([total, outcome], axis=2) if arriving else total + outcome
        ones = np.ones_like(total[:, 0])
        difference = Difference.of(*(Ratio.of(Moments.of(total[:, variant], ones)) for variant in range(2)))
        size = 2 * total.shape[2]
        wrong_fixed |= np.abs(difference.value) > difference.reach(0.95)
        wrong_valid |= np.abs(difference.value) > always_valid_reach(difference.standard_error, size, 0.95, 2000)
    return float(wrong_fixed.mean()), float(wrong_valid.mean())


@pytest.mark.parametrize("arriving", [True, False])
def test_peeking_daily_breaks_the_fixed_test_and_not_the_always_valid_one(arriving: bool) -> None:
    fixed, valid = peeked(20, arriving)
    assert fixed > 0.12
    assert valid < 0.05


def test_always_valid_bounds_are_tightest_where_they_are_tuned() -> None:
    users = np.arange(100, 20_000, 10)
    reach = always_valid_reach(1.0, users, 0.95, 5000)
    assert users[np.argmin(reach)] == pytest.approx(5000, rel=0.05)
    assert reach.min() > 1.96
    assert mixture_variance(5000, 0.99) > mixture_variance(5000, 0.95)


def test_constant_multiple_survives_a_fiftyfold_growth_of_information() -> None:
    """Brownian motion at 50 looks between 1 and 50: the bound of a sequence whose number of users stands still."""
    random = np.random.default_rng(8)
    times = np.geomspace(1.0, 50.0, 50)
    steps = np.sqrt(np.diff(times, prepend=0.0)) * random.standard_normal((20_000, 50))
    standardised = np.abs(np.cumsum(steps, axis=1)) / np.sqrt(times)
    bound = always_valid_reach(1.0, 5000, 0.95, 5000)
    assert bound == pytest.approx(3.03, abs=0.01)
    assert (standardised > bound).any(axis=1).mean() < 0.05
    assert (standardised > 1.96).any(axis=1).mean() > 0.3


def test_resplits_show_the_rate_of_these_users() -> None:
    clicks, impressions = heavy_users(np.random.default_rng(9), (600,))
    sums = {"ctr": UserSums(clicks, impressions), "orders": UserSums(np.minimum(clicks, 3), np.ones(600))}
    rates = false_positives(sums, frozenset(["ctr"]), 0.5, EXPERIMENTS, 0.95, seed=1)
    assert rates["ctr"].by_users == pytest.approx(0.05, abs=0.02)
    assert rates["ctr"].by_rows is not None and rates["ctr"].by_rows > 0.2
    assert LOWEST < rates["orders"].by_users < HIGHEST and rates["orders"].by_rows is None
    assert false_positives(sums, frozenset(["ctr"]), 0.5, EXPERIMENTS, 0.95, seed=1) == rates


def test_bootstrap_of_a_difference_agrees_with_the_delta_method() -> None:
    random = np.random.default_rng(10)
    clicks, impressions = heavy_users(random, (3000,))
    treated = random.random(3000) < 0.4
    sums = UserSums(clicks, impressions)
    drawn = resample([DrawnDifference.of(sums, treated)], 3000, 600, seed=0)
    pair = [Ratio.of(Moments.of(clicks[users], impressions[users])) for users in (~treated, treated)]
    difference = Difference.of(*pair)
    assert drawn.value[0] == pytest.approx(difference.value, rel=1e-9)
    assert drawn.resamples.std() == pytest.approx(difference.standard_error, rel=0.1)
    low, high = percentile_interval(drawn.resamples[:, 0])
    assert [low, high] == pytest.approx(
        [difference.value - difference.reach(0.95), difference.value + difference.reach(0.95)], abs=2e-3
    )

"""Differences, CUPED, always-valid bounds and sample ratio against gbstats, on users with heavy tails."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from prectr.evaluation.experiments.analysis import SampleRatio, always_valid_reach
from prectr.evaluation.experiments.cuped import UserSums, adjust
from prectr.evaluation.experiments.ratio import Difference, Moments, Ratio

statistics = pytest.importorskip("gbstats.models.statistics")
frequentist = pytest.importorskip("gbstats.frequentist.tests")
gbstats_ratio = pytest.importorskip("gbstats.utils").check_srm

EXACT = {"rel": 1e-9, "abs": 1e-12}


@dataclass(frozen=True)
class Sample:
    """Users of one variant: amounts and rows during the experiment, amounts before it."""

    above: np.ndarray
    below: np.ndarray
    before: np.ndarray


def draw(seed: int, users: int, effect: float) -> Sample:
    random = np.random.default_rng(seed)
    activity = random.pareto(2.5, users) + 0.2
    rows = random.poisson(10 * activity) + 1.0
    return Sample(random.binomial(rows.astype(int), 0.1 + effect) + 0.0, rows, random.poisson(3 * activity) + 0.0)


@pytest.fixture(scope="module")
def variants() -> tuple[Sample, Sample]:
    return draw(1, 300, 0.0), draw(2, 500, 0.02)


def mean_of(values: np.ndarray):
    return statistics.SampleMeanStatistic(n=len(values), sum=values.sum(), sum_squares=(values**2).sum())


def ratio_of(sample: Sample):
    product = float(sample.above @ sample.below)
    return statistics.RatioStatistic(len(sample.above), mean_of(sample.above), mean_of(sample.below), product)


def ours(sample: Sample, as_mean: bool) -> Ratio:
    return Ratio.of(Moments.of(sample.above, np.ones_like(sample.above) if as_mean else sample.below))


@pytest.mark.parametrize("as_mean", [True, False])
@pytest.mark.parametrize("difference_type", ["absolute", "relative"])
def test_difference_and_lift_of_means_and_ratios(variants, as_mean, difference_type) -> None:
    theirs = [mean_of(sample.above) if as_mean else ratio_of(sample) for sample in variants]
    config = frequentist.FrequentistConfig(difference_type=difference_type)
    expected = frequentist.TwoSidedTTest(*theirs, config).compute_result()
    make = Difference.of if difference_type == "absolute" else Difference.relative
    found = make(*(ours(sample, as_mean) for sample in variants))
    interval = found.interval(0.95)
    assert found.value == pytest.approx(expected.expected, **EXACT)
    assert [interval.low, interval.high] == pytest.approx(expected.ci, **EXACT)
    assert found.p_value == pytest.approx(expected.p_value, abs=1e-12)
    assert found.standard_error == pytest.approx(expected.uplift.stddev, **EXACT)


def test_cuped_of_a_mean(variants) -> None:
    theirs = [
        statistics.RegressionAdjustedStatistic(
            n=len(sample.above),
            post_statistic=mean_of(sample.above),
            pre_statistic=mean_of(sample.before),
            post_pre_sum_of_products=float(sample.above @ sample.before),
            theta=0,
        )
        for sample in variants
    ]
    config = frequentist.FrequentistConfig(difference_type="absolute")
    test = frequentist.TwoSidedTTest(*theirs, config)
    expected = test.compute_result()
    during, before = (
        UserSums(np.concatenate(columns), np.ones(800))
        for columns in ([part.above for part in variants], [part.before for part in variants])
    )
    found = adjust(during, before, np.arange(800) >= 300)
    assert found.difference.value == pytest.approx(expected.expected, **EXACT)
    interval = found.difference.interval(0.95)
    assert [interval.low, interval.high] == pytest.approx(expected.ci, **EXACT)
    assert found.theta == pytest.approx(test.stat_a.theta, rel=1e-9)
    plain = Difference.of(*(ours(sample, True) for sample in variants))
    assert found.variance_reduction == pytest.approx(
        1 - found.difference.standard_error**2 / plain.standard_error**2, rel=1e-9
    )
    assert found.variance_reduction > 0.1


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("tightest_at", [500, 5000])
def test_always_valid_bounds(variants, alpha, tightest_at) -> None:
    config = frequentist.SequentialConfig(
        difference_type="absolute", alpha=alpha, sequential_tuning_parameter=tightest_at
    )
    theirs = [ratio_of(sample) for sample in variants]
    expected = frequentist.SequentialTwoSidedTTest(*theirs, config).compute_result()
    found = Difference.of(*(ours(sample, False) for sample in variants))
    reach = always_valid_reach(found.standard_error, 800, 1 - alpha, tightest_at)
    assert [found.value - reach, found.value + reach] == pytest.approx(expected.ci, **EXACT)


@pytest.mark.parametrize(("observed", "shares"), [([500, 480], [1, 1]), ([90, 10, 200], [3, 1, 6]), ([7, 3], [1, 1])])
def test_sample_ratio(observed, shares) -> None:
    found = SampleRatio.of(np.array(observed), np.array(shares, float))
    assert found.p_value == pytest.approx(gbstats_ratio(observed, shares), rel=1e-12)
    assert sum(found.intended) == pytest.approx(1.0)


def test_a_hand_computed_ratio() -> None:
    ratio = Ratio.of(Moments.of(np.array([1.0, 0.0, 3.0]), np.array([2.0, 2.0, 4.0])))
    # R = 4 / 8; residuals 0, -1, 1; variance of them 1; b = 8 / 3: 1 / (3 * 64 / 9)
    assert ratio.value == 0.5 and ratio.variance == pytest.approx(9 / 192)


def test_what_has_no_value_is_nan_and_does_not_warn(recwarn: pytest.WarningsRecorder) -> None:
    nobody = Ratio.of(Moments.of(np.zeros(5), np.zeros(5)))
    single = Ratio.of(Moments.of(np.array([1.0]), np.array([4.0])))
    nothing = Ratio.of(Moments.of(np.zeros(5), np.ones(5)))
    some = Ratio.of(Moments.of(np.array([0.0, 1.0, 1.0]), np.ones(3)))
    assert math.isnan(nobody.value) and math.isnan(single.variance)
    assert math.isnan(Difference.relative(nothing, some).value)
    assert Difference.of(nothing, some).value == pytest.approx(2 / 3)
    assert math.isnan(Difference.of(nothing, nothing).p_value)
    assert not [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)]

"""Analysis of an experiment: sample ratio, measures with intervals and verdicts, and the same after each day.

Three intervals of a difference, for three ways to look at it:

    fixed         delta method (amounts: bootstrap by user); valid for one look at the planned end
    adjusted      the same with CUPED, if there are rows from before the experiment
    always valid  a confidence sequence, valid for a look every day; around the adjusted difference if there is one

Verdicts: "better" or "worse" if the interval excludes zero; "no difference" if it does not (no difference was shown,
which does not prove that there is none); "undefined" without an interval; "withheld" if the sample ratio is wrong. Each
treatment is compared with the control. Nothing corrects for several measures or treatments.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import chdtrc, ndtri

from prectr.evaluation.experiments.config import ExperimentConfig
from prectr.evaluation.experiments.cuped import UserSums, adjust
from prectr.evaluation.experiments.exposures import Experiment, with_derived_sums
from prectr.evaluation.experiments.measures import Measure
from prectr.evaluation.experiments.ratio import Difference, Moments, Ratio
from prectr.evaluation.experiments.resplit import false_positives
from prectr.metrics.bootstrap import percentile_interval, resample
from prectr.metrics.comparison import LEAST_USERS, Interval

Verdict = Literal["better", "worse", "no difference", "undefined", "withheld"]


@dataclass(frozen=True)
class SampleRatio:
    """Test whether each variant has the intended share of users, in the order of the variants.

        chi^2 = sum over variants of (observed - expected)^2 / expected,   expected = users * share / sum of shares

    A mismatch means that users were lost or sorted. Then no difference between the variants says anything about the
    treatment (Fabijan et al., "Diagnosing Sample Ratio Mismatch in Online Controlled Experiments", 2019). The limit on
    the p-value is low, because every experiment runs this test.
    """

    observed: list[int]
    """Users of each variant."""
    intended: list[float]
    """Intended shares, which sum to 1."""
    chi_square: float
    p_value: float

    @classmethod
    def of(cls, observed: np.ndarray, shares: np.ndarray) -> "SampleRatio":
        """Test users [v] of v variants against shares [v] in any unit; there must be at least one user."""
        intended = shares / shares.sum()
        expected = intended * observed.sum()
        chi_square = float(((observed - expected) ** 2 / expected).sum())
        return cls(
            [int(count) for count in observed],
            [float(share) for share in intended],
            chi_square,
            float(chdtrc(len(observed) - 1, chi_square)),
        )


def mixture_variance(tightest_at: float, level: float) -> float:
    """rho^2 of `always_valid_reach`."""
    alpha = 1.0 - level
    return float((np.log(1.0 - 2.0 * np.log(alpha)) - 2.0 * np.log(alpha)) / tightest_at)


def always_valid_reach(standard_error: Any, users: Any, level: float, tightest_at: float) -> Any:
    """Half the width of bounds that hold at all looks at once: a confidence sequence of a normal mixture.

        |D_N - D| <= SE_N sqrt((1 + x) / x * ln((1 + x) / alpha^2)),   x = N rho^2     for all N at once
        rho^2     = (ln(1 - 2 ln alpha) - 2 ln alpha) / N*                              tightest near N*

    | symbol | variable |
    |---|---|
    | D_N, SE_N | estimate and `standard_error` after N `users` |
    | N* | `tightest_at`, ExperimentConfig.sequential_users |
    | alpha | 1 - `level` |

    This is the mixture of Robbins (1970) in its asymptotic form: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
    "Time-uniform central limit theory and asymptotic confidence sequences", 2021, equations 9 and 161 of version 7. It
    assumes that later looks see more users, each of them complete. If the same users come again and N stays the same,
    the bound is a multiple of SE, at least 3.03 for alpha = 5 %. Looks may then continue until the variance of the
    summed outcomes is about 50 times that of the first look [ours, from the boundary crossing of Brownian motion], and
    longer if users differ permanently, because then the days of a user agree.

    Arrays are allowed, with one element per look.
    """
    time = np.asarray(users, float) * mixture_variance(tightest_at, level)
    alpha = 1.0 - level
    with np.errstate(divide="ignore", invalid="ignore"):
        return (standard_error * np.sqrt((1.0 + time) / time * np.log((1.0 + time) / alpha**2)))[()]


@dataclass(frozen=True)
class DrawnDifference:
    """Treatment minus control of a measure on a resample of users; a `UserStatistic`.

    Attributes:
        sums: [4, n]: above and below of the treatment's users (0 for others), then of the control's users.
    """

    sums: np.ndarray

    @classmethod
    def of(cls, sums: UserSums, treated: np.ndarray) -> "DrawnDifference":
        """Build it for n users of two variants; `treated` is bool [n]."""
        pair = np.stack([sums.above, sums.below])
        return cls(np.concatenate([pair * treated, pair * ~treated]))

    def of_counts(self, counts: np.ndarray) -> float:
        """The difference if user u counts `counts[u]` times; NaN if the `below` of a variant is 0."""
        above, below, above_control, below_control = self.sums @ counts.astype(np.float64)
        if not below or not below_control:
            return float("nan")
        return float(above / below - above_control / below_control)


def analyse(experiment: Experiment, config: ExperimentConfig) -> dict[str, Any]:
    """Analyse an experiment; returns the report as a JSON object."""
    variants = experiment.variants
    shares = np.array([config.shares.get(name, 1.0) for name in variants])
    sample_ratio = SampleRatio.of(np.bincount(experiment.variant, minlength=len(variants)), shares)
    trusted = sample_ratio.p_value >= config.sample_ratio_p
    sums = with_derived_sums(experiment.until(len(experiment.days) - 1))
    before = None if experiment.before is None else with_derived_sums(experiment.before)
    measures = {
        measure.name: _compare(experiment, measure, sums, before, config, trusted) for measure in experiment.measures
    }
    return {
        "simulated": experiment.simulated,
        "control": variants[0],
        "variants": variants,
        "first_day": str(experiment.days[0]),
        "last_day": str(experiment.days[-1]),
        "level": config.level,
        "sample_ratio": {**asdict(sample_ratio), "limit": config.sample_ratio_p, "ok": trusted},
        "cuped": before is not None,
        "counts": experiment.counts,
        "sums": {
            name: {key: float(value[experiment.variant == code].sum()) for key, value in sums.items()}
            for code, name in enumerate(variants)
        },
        "measures": measures,
        "days": _by_day(experiment, config),
        "resplits": _resplit(experiment, sums, config),
    }


def _compare(
    experiment: Experiment,
    measure: Measure,
    sums: dict[str, np.ndarray],
    before: dict[str, np.ndarray] | None,
    config: ExperimentConfig,
    trusted: bool,
) -> dict[str, Any]:
    """Values of one measure in all variants, and the comparison of each treatment with the control."""
    user_sums = UserSums(sums[measure.above], sums[measure.below])
    ratios = [_ratio(user_sums, experiment.variant == code) for code in range(len(experiment.variants))]
    treatments = {}
    for code in range(1, len(experiment.variants)):
        treated = experiment.variant == code
        used = treated | (experiment.variant == 0)
        plain = Difference.of(ratios[0], ratios[code])
        relative = Difference.relative(ratios[0], ratios[code])
        bootstrap = _bootstrap(user_sums, treated, used, config) if measure.bootstrap else None
        fixed = plain.interval(config.level) if bootstrap is None else bootstrap
        comparison: dict[str, Any] = {
            "difference": float(plain.value),
            "standard_error": float(plain.standard_error),
            "p_value": float(plain.p_value),
            "delta": asdict(plain.interval(config.level)),
            "bootstrap": None if bootstrap is None else asdict(bootstrap),
            "lift": {"value": float(relative.value), **asdict(relative.interval(config.level))},
            "verdict": verdict(fixed, trusted),
            "adjusted": None,
        }
        difference = plain
        if before is not None:
            past = UserSums(before[measure.above], before[measure.below])
            adjusted = adjust(user_sums.of(used), past.of(used), treated[used])
            difference = adjusted.difference
            interval = difference.interval(config.level)
            comparison["adjusted"] = {
                "difference": float(difference.value),
                "p_value": float(difference.p_value),
                **asdict(interval),
                "theta": adjusted.theta,
                "variance_reduction": adjusted.variance_reduction,
                "verdict": verdict(interval, trusted),
            }
        bounds = _always_valid(difference, int(used.sum()), config)
        comparison["always_valid"] = {**asdict(bounds), "verdict": verdict(bounds, trusted)}
        treatments[experiment.variants[code]] = comparison
    return {
        "title": measure.title,
        "definition": measure.definition,
        "values": {
            name: {"value": float(ratio.value), "standard_error": float(np.sqrt(ratio.variance))}
            for name, ratio in zip(experiment.variants, ratios)
        },
        "treatments": treatments,
    }


def verdict(interval: Interval, trusted: bool = True) -> Verdict:
    """Verdict on a difference from its interval; `trusted` is False if the sample ratio is wrong."""
    if not trusted:
        return "withheld"
    if not np.isfinite([interval.low, interval.high]).all():
        return "undefined"
    return "better" if interval.low > 0 else "worse" if interval.high < 0 else "no difference"


def _ratio(sums: UserSums, users: np.ndarray) -> Ratio:
    variant_sums = sums.of(users)
    return Ratio.of(Moments.of(variant_sums.above, variant_sums.below))


def _bootstrap(sums: UserSums, treated: np.ndarray, used: np.ndarray, config: ExperimentConfig) -> Interval:
    if min(treated.sum(), (used & ~treated).sum()) < LEAST_USERS:
        return Interval(float("nan"), float("nan"))
    statistic = DrawnDifference.of(sums.of(used), treated[used])
    drawn = resample([statistic], int(used.sum()), config.resamples, config.seed).resamples[:, 0]
    return Interval(*percentile_interval(drawn, config.level))


def _always_valid(difference: Difference, users: int, config: ExperimentConfig) -> Interval:
    reach = float(always_valid_reach(difference.standard_error, users, config.level, config.sequential_users))
    return Interval(float(difference.value) - reach, float(difference.value) + reach)


def _by_day(experiment: Experiment, config: ExperimentConfig) -> list[dict[str, Any]]:
    """The differences after each day with their fixed and always-valid reach, without CUPED."""
    rows = []
    for day, name in enumerate(experiment.days):
        assigned = experiment.entered <= day
        sums = with_derived_sums(experiment.until(day))
        measures: dict[str, Any] = {}
        for measure in experiment.measures:
            user_sums = UserSums(sums[measure.above], sums[measure.below])
            control = _ratio(user_sums, assigned & (experiment.variant == 0))
            measures[measure.name] = {}
            for code in range(1, len(experiment.variants)):
                treatment = _ratio(user_sums, assigned & (experiment.variant == code))
                difference = Difference.of(control, treatment)
                users = int(control.users + treatment.users)
                reach = always_valid_reach(difference.standard_error, users, config.level, config.sequential_users)
                measures[measure.name][experiment.variants[code]] = {
                    "difference": float(difference.value),
                    "fixed_reach": float(difference.reach(config.level)),
                    "always_valid_reach": float(reach),
                }
        rows.append({"day": str(name), "users": int(assigned.sum()), "measures": measures})
    return rows


def _resplit(experiment: Experiment, sums: dict[str, np.ndarray], config: ExperimentConfig) -> dict[str, Any] | None:
    """False positives of the delta-method tests among these users; None if `resplits` is 0."""
    if not config.resplits:
        return None
    measures = false_positives(
        {measure.name: UserSums(sums[measure.above], sums[measure.below]) for measure in experiment.measures},
        frozenset(measure.name for measure in experiment.measures if measure.below == "impressions"),
        float(np.mean(experiment.variant != 0)),
        config.resplits,
        config.level,
        config.seed,
    )
    expected = 1 - config.level
    error = np.sqrt(expected * (1 - expected) / config.resplits)
    return {
        "splits": config.resplits,
        "expected": expected,
        "binomial_reach": float(-ndtri((1 - 0.95) / 2) * error),
        "measures": {name: asdict(rates) for name, rates in measures.items()},
    }

"""An experiment judged: sample ratio, every measure with its intervals, and what one would have seen day by day.

Three intervals of a difference, for three questions:

    fixed         delta method (amounts: bootstrap by user), for who looks once, at the end that was planned
    adjusted      the same with CUPED, where there is a time before the experiment
    always valid  a confidence sequence, for who looks every day; adjusted where CUPED is

A verdict is "better" or "worse" where its interval leaves zero out, "no difference" where it does not (none was shown,
which is not that there is none), "undefined" where there is no interval, and "withheld" where the sample ratio is off.
Every treatment is held against the control; nothing corrects for looking at several measures or treatments.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import ndtri

from prectr.evaluation.experiments.config import ExperimentConfig
from prectr.evaluation.experiments.cuped import UserSums, adjust
from prectr.evaluation.experiments.exposures import Experiment, measured
from prectr.evaluation.experiments.measures import Measure
from prectr.evaluation.experiments.ratio import Difference, Moments, Ratio
from prectr.evaluation.experiments.resplit import false_positives
from prectr.evaluation.experiments.sample_ratio import SampleRatio
from prectr.evaluation.experiments.sequential import always_valid_reach
from prectr.metrics.bootstrap import percentile_interval, resample
from prectr.metrics.comparison import LEAST_USERS, Interval

Verdict = Literal["better", "worse", "no difference", "undefined", "withheld"]


@dataclass(frozen=True)
class DrawnDifference:
    """Treatment minus control of a measure when users are drawn: a `UserStatistic`.

    Attributes:
        sums: [4, n] above and below of the treatment's users (0 for others), then of the control's.
    """

    sums: np.ndarray

    @classmethod
    def of(cls, sums: UserSums, treated: np.ndarray) -> "DrawnDifference":
        """Of n users of two variants; bool [n] says who is treated."""
        pair = np.stack([sums.above, sums.below])
        return cls(np.concatenate([pair * treated, pair * ~treated]))

    def of_counts(self, counts: np.ndarray) -> float:
        """The difference with user u counted `counts[u]` times; NaN where a variant has no `below`."""
        above, below, above_control, below_control = self.sums @ counts.astype(np.float64)
        if not below or not below_control:
            return float("nan")
        return float(above / below - above_control / below_control)


def analyse(experiment: Experiment, config: ExperimentConfig) -> dict[str, Any]:
    """The whole report, ready for JSON."""
    variants = experiment.variants
    shares = np.array([config.shares.get(name, 1.0) for name in variants])
    sample_ratio = SampleRatio.of(np.bincount(experiment.variant, minlength=len(variants)), shares)
    trusted = sample_ratio.p_value >= config.sample_ratio_p
    sums = measured(experiment.until(len(experiment.days) - 1))
    before = None if experiment.before is None else measured(experiment.before)
    measures = {
        measure.name: _judge(experiment, measure, sums, before, config, trusted) for measure in experiment.measures
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


def _judge(
    experiment: Experiment,
    measure: Measure,
    sums: dict[str, np.ndarray],
    before: dict[str, np.ndarray] | None,
    config: ExperimentConfig,
    trusted: bool,
) -> dict[str, Any]:
    """One measure in all variants, and each treatment against the control."""
    own = UserSums(sums[measure.above], sums[measure.below])
    ratios = [_ratio(own, experiment.variant == code) for code in range(len(experiment.variants))]
    compared = {}
    for code in range(1, len(experiment.variants)):
        treated = experiment.variant == code
        used = treated | (experiment.variant == 0)
        plain = Difference.of(ratios[0], ratios[code])
        relative = Difference.relative(ratios[0], ratios[code])
        bootstrap = _bootstrap(own, treated, used, config) if measure.bootstrap else None
        fixed = plain.interval(config.level) if bootstrap is None else bootstrap
        made: dict[str, Any] = {
            "difference": float(plain.value),
            "standard_error": float(plain.standard_error),
            "p_value": float(plain.p_value),
            "delta": asdict(plain.interval(config.level)),
            "bootstrap": None if bootstrap is None else asdict(bootstrap),
            "lift": {"value": float(relative.value), **asdict(relative.interval(config.level))},
            "verdict": verdict(fixed, trusted),
            "adjusted": None,
        }
        last = plain
        if before is not None:
            past = UserSums(before[measure.above], before[measure.below])
            found = adjust(own.of(used), past.of(used), treated[used])
            last = found.difference
            interval = last.interval(config.level)
            made["adjusted"] = {
                "difference": float(last.value),
                "p_value": float(last.p_value),
                **asdict(interval),
                "theta": found.theta,
                "variance_reduction": found.variance_reduction,
                "verdict": verdict(interval, trusted),
            }
        bounds = _always_valid(last, int(used.sum()), config)
        made["always_valid"] = {**asdict(bounds), "verdict": verdict(bounds, trusted)}
        compared[experiment.variants[code]] = made
    return {
        "title": measure.title,
        "definition": measure.definition,
        "values": {
            name: {"value": float(ratio.value), "standard_error": float(np.sqrt(ratio.variance))}
            for name, ratio in zip(experiment.variants, ratios)
        },
        "treatments": compared,
    }


def verdict(interval: Interval, trusted: bool = True) -> Verdict:
    """What may be said of a difference."""
    if not trusted:
        return "withheld"
    if not np.isfinite([interval.low, interval.high]).all():
        return "undefined"
    return "better" if interval.low > 0 else "worse" if interval.high < 0 else "no difference"


def _ratio(sums: UserSums, users: np.ndarray) -> Ratio:
    part = sums.of(users)
    return Ratio.of(Moments.of(part.above, part.below))


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
    """What this report would have said after each day, without CUPED: fixed reach and always-valid reach."""
    told = []
    for day, name in enumerate(experiment.days):
        there = experiment.entered <= day
        sums = measured(experiment.until(day))
        measures: dict[str, Any] = {}
        for measure in experiment.measures:
            own = UserSums(sums[measure.above], sums[measure.below])
            control = _ratio(own, there & (experiment.variant == 0))
            measures[measure.name] = {}
            for code in range(1, len(experiment.variants)):
                treatment = _ratio(own, there & (experiment.variant == code))
                found = Difference.of(control, treatment)
                users = int(control.users + treatment.users)
                reach = always_valid_reach(found.standard_error, users, config.level, config.sequential_users)
                measures[measure.name][experiment.variants[code]] = {
                    "difference": float(found.value),
                    "fixed_reach": float(found.reach(config.level)),
                    "always_valid_reach": float(reach),
                }
        told.append({"day": str(name), "users": int(there.sum()), "measures": measures})
    return told


def _resplit(experiment: Experiment, sums: dict[str, np.ndarray], config: ExperimentConfig) -> dict[str, Any] | None:
    """False positives of the delta-method tests among these users; None where no re-assignment is asked for."""
    if not config.resplits:
        return None
    found = false_positives(
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
        "measures": {name: asdict(rates) for name, rates in found.items()},
    }

"""Comparison of models: the difference of a metric, its interval, and a verdict in one word.

A measured difference has two sources of error, kept apart:

    sampling  another test day has other users: paired bootstrap by user of the mean over seeds
    training  another seed gives other weights: spread over seeds of the difference on the same rows

The verdict uses both. Independent errors add as squares, so on each side of the difference d, with s seeds,

    reach = sqrt(sampling reach^2 + (t * spread / sqrt(s))^2)

where t is Student's quantile for s - 1 degrees of freedom [ours]. It covers the truth about as often as `level` says
or more often, whatever the parts of the two errors; one quantile for both, with Satterthwaite's degrees of freedom,
covers it too seldom with few seeds (`make bench-intervals` prints both).

The verdict is "better" or "worse" if d +- reach excludes zero, else "no difference": no difference was shown, which
does not prove that there is none. One seed has no training error: `seed_spread` is NaN and the verdict holds for these
weights only. Each verdict stands alone: none is corrected for the number of comparisons (`corrected_widening`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtri, stdtrit

from prectr.metrics.bootstrap import UserStatistic, percentile_interval, resample

LEAST_USERS = 10
"""Fewest users of an interval. Resamples of fewer users are too alike, so intervals are NaN."""

Contrast = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Function of a model's and the base's values, element by element, such as the difference; 0 means equal."""

Verdict = Literal["better", "worse", "no difference", "undefined"]


@dataclass(frozen=True)
class Interval:
    """Lower and upper bound of a value."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A metric of one model, or the difference of two.

    Attributes:
        value: mean over seeds.
        sampling: interval for other users.
        seeds: number of seeds.
        seed_spread: standard deviation over seeds; NaN for one seed.
        both: interval for other users and other seeds; equal to `sampling` for one seed.
    """

    value: float
    sampling: Interval
    seeds: int
    seed_spread: float
    both: Interval


@dataclass(frozen=True)
class Comparison:
    """A model against the base model.

    Attributes:
        difference: model minus base, or another contrast of the two.
        verdict: conclusion; "undefined" if a metric has no value on these rows or depends on too few users.
    """

    difference: Estimate
    verdict: Verdict


@dataclass(frozen=True)
class ModelFigure:
    """One cell of a table: a model's metric and its comparison with the base (None for the base)."""

    estimate: Estimate
    against_base: Comparison | None


def compare(
    measure: Callable[[np.ndarray], UserStatistic],
    users: int,
    scores: Sequence[np.ndarray],
    base: Sequence[np.ndarray],
    *,
    contrast: Contrast = np.subtract,
    higher_is_better: bool = True,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compare two models on the same rows.

    Args:
        measure: makes the statistic of one score vector, such as `UserRows.gauc`.
        users: number of users of the rows.
        scores: [seeds][n] scores of the model.
        base: [seeds][n] scores of the base model, with equally many seeds.
        contrast: value to compare; `relative_improvements` for RelaImpr.
        higher_is_better: False for a loss.
        level: confidence level of all intervals.
        resamples: bootstrap resamples of users.
        seed: seed of the resampling.

    Raises:
        ValueError: unequal numbers of seeds, or none; or as `measure`.

    Example:
        >>> from prectr.metrics.bootstrap import UserRows
        >>> user, clicked = np.arange(40) // 2, np.arange(40) % 2 == 0
        >>> rows = UserRows(user, clicked)
        >>> good, bad = np.where(clicked, 0.9, 0.1), np.where(clicked, 0.1, 0.9)
        >>> compare(rows.auc, rows.users, [good], [bad], resamples=50).verdict
        'better'
    """
    statistics = {"model": [measure(score) for score in scores], "base": [measure(score) for score in base]}
    models = DrawnModels.of(statistics, users, resamples=resamples, seed=seed)
    figures = models.figures("base", contrast=contrast, higher_is_better=higher_is_better, level=level)
    comparison = figures["model"].against_base
    assert comparison is not None
    return comparison


@dataclass(frozen=True)
class DrawnModels:
    """One metric of several models on the rows and on all resamples of users; gives any contrast of the models.

    Attributes:
        value: model's name -> [seeds] values on the rows.
        resamples: model's name -> [count, seeds] values; resample r has the same users for all models.
    """

    value: dict[str, np.ndarray]
    resamples: dict[str, np.ndarray]

    @classmethod
    def of(
        cls, statistics: Mapping[str, Sequence[UserStatistic]], users: int, *, resamples: int = 1000, seed: int = 0
    ) -> "DrawnModels":
        """Compute all statistics on the same resamples; with fewer than `LEAST_USERS` users, resamples are NaN.

        Args:
            statistics: model's name -> one statistic for each seed.
            users: number of users of the rows.
            resamples: bootstrap resamples of users.
            seed: seed of the resampling.

        Raises:
            ValueError: unequal numbers of seeds, or none.
        """
        seeds = {name: len(by_seed) for name, by_seed in statistics.items()}
        if len(set(seeds.values())) > 1 or not all(seeds.values()):
            counts = ", ".join(f"{name} {count}" for name, count in seeds.items())
            raise ValueError(f"Models must have equal numbers of seeds, at least one; got {counts}.")
        flat = [statistic for by_seed in statistics.values() for statistic in by_seed]
        draws = resample(flat, users, resamples, seed)
        if users < LEAST_USERS:
            draws.resamples.fill(np.nan)
        models = len(statistics)
        return cls(
            dict(zip(statistics, draws.value.reshape(models, -1))),
            dict(zip(statistics, draws.resamples.reshape(resamples, models, -1).swapaxes(0, 1))),
        )

    def figures(
        self, base: str, *, contrast: Contrast = np.subtract, higher_is_better: bool = True, level: float = 0.95
    ) -> dict[str, ModelFigure]:
        """Each model's metric and its comparison with `base`; other arguments as `compare`.

        Raises:
            ValueError: `base` is none of the models.
        """
        if base not in self.value:
            raise ValueError(f"No scores of the base model {base!r}; models are {', '.join(self.value) or 'none'}.")
        sign = 1.0 if higher_is_better else -1.0
        figures = {}
        for name, value in self.value.items():
            comparison = None
            if name != base:
                difference = _estimate(
                    contrast(value, self.value[base]), contrast(self.resamples[name], self.resamples[base]), level
                )
                comparison = Comparison(difference, _verdict(difference, sign))
            figures[name] = ModelFigure(_estimate(value, self.resamples[name], level), comparison)
        return figures


def corrected_widening(comparisons: int, level: float = 0.95) -> float:
    """How many times as wide an interval is if all of some comparisons are to hold together with probability `level`.

    By Bonferroni's bound, for normal errors: z(1 - (1 - level) / 2m) / z(1 - (1 - level) / 2).

    Example:
        >>> corrected_widening(1), round(corrected_widening(20), 2)  # 3.02 instead of 1.96 standard errors
        (1.0, 1.54)
    """
    outside = (1 - level) / 2
    return float(ndtri(outside / comparisons) / ndtri(outside))


def relative_improvements(value: np.ndarray, base: np.ndarray) -> np.ndarray:
    """RelaImpr in percent of AUCs against those of a base, any shape; NaN for a base at or below 0.5."""
    above_chance = np.where(base > 0.5, base - 0.5, np.nan)
    return (value - base) / above_chance * 100.0


def _estimate(by_seed: np.ndarray, resamples: np.ndarray, level: float) -> Estimate:
    """Estimate from values [seeds] and their resamples [count, seeds]."""
    seeds = len(by_seed)
    value = float(by_seed.mean())
    sampling = Interval(*percentile_interval(resamples.mean(1), level))
    if seeds == 1:
        return Estimate(value, sampling, seeds, float("nan"), sampling)
    spread = float(by_seed.std(ddof=1))
    training = float(stdtrit(seeds - 1, (1 + level) / 2)) * spread / seeds**0.5
    below, above = max(value - sampling.low, 0.0), max(sampling.high - value, 0.0)
    both = Interval(value - float(np.hypot(below, training)), value + float(np.hypot(above, training)))
    return Estimate(value, sampling, seeds, spread, both)


def _verdict(difference: Estimate, sign: float) -> Verdict:
    if np.isnan([difference.value, difference.both.low, difference.both.high]).any():
        return "undefined"
    if difference.both.low > 0 or difference.both.high < 0:
        return "better" if sign * difference.value > 0 else "worse"
    return "no difference"

"""Is one model better than another: by how much, how sure, and in one plain word.

Two things make a measured difference uncertain, and they are told apart:

    sampling  other users would have come on the test day: the paired bootstrap by user of the mean over seeds
    training  other seeds would have given other weights: the spread over seeds of the difference on the same rows

The verdict needs both. Independent errors add as squares, so on each side of the difference d, with s seeds,

    reach = sqrt(sampling reach^2 + (t * spread / sqrt(s))^2)

t being Student's quantile for s - 1 degrees of freedom [ours]. "Better" or "worse" is said where d +- reach leaves zero
out, "no difference" where it does not: none was shown, which is not that there is none. One seed says nothing of
training: `seed_spread` is NaN then and the verdict is about these very weights.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from prectr.metrics.bootstrap import UserStatistic, percentile_interval, resample

LEAST_USERS = 10
"""With fewer users, resamples of them are too much alike to say anything: intervals are NaN."""

Contrast = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""What is said of a model's figures against the base's, element by element; 0 is "the same"."""

Verdict = Literal["better", "worse", "no difference", "undefined"]


@dataclass(frozen=True)
class Interval:
    """A figure that may lie between two bounds."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A metric of one model, or the difference of two.

    Attributes:
        value: mean over seeds.
        sampling: where it would be with other users.
        seeds: how many there are.
        seed_spread: standard deviation over seeds; NaN for one seed.
        both: where it would be with other users and other seeds; `sampling` for one seed.
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
        verdict: what may be said; "undefined" where a metric has no value on these rows, or too few users decide it.
    """

    difference: Estimate
    verdict: Verdict


@dataclass(frozen=True)
class ModelFigure:
    """One cell of a table: a metric of a model, and against the base (None for the base itself)."""

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
        users: of those rows.
        scores: [seeds][n] of the model.
        base: [seeds][n] of the other; as many seeds.
        contrast: what is compared; `relative_improvements` for RelaImpr.
        higher_is_better: False for a loss.
        level: of all intervals.
        resamples: of users.
        seed: of the resampling.

    Raises:
        ValueError: unequal numbers of seeds, or none; or as `measure`.
    """
    figures = compare_models(
        measure,
        users,
        {"model": scores, "base": base},
        "base",
        contrast=contrast,
        higher_is_better=higher_is_better,
        level=level,
        resamples=resamples,
        seed=seed,
    )
    compared = figures["model"].against_base
    assert compared is not None
    return compared


def compare_models(
    measure: Callable[[np.ndarray], UserStatistic],
    users: int,
    scores: Mapping[str, Sequence[np.ndarray]],
    base: str,
    *,
    contrast: Contrast = np.subtract,
    higher_is_better: bool = True,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, ModelFigure]:
    """One metric of many models, all with the same resamples of users; arguments and errors as `compare`.

    Args:
        measure: see `compare`.
        users: see `compare`.
        scores: [seeds][n] by the model's name.
        base: the model that the others are held against.
        contrast: see `compare`.
        higher_is_better: see `compare`.
        level: see `compare`.
        resamples: see `compare`.
        seed: see `compare`.
    """
    statistics = {name: [measure(of_seed) for of_seed in of_model] for name, of_model in scores.items()}
    drawn = DrawnModels.of(statistics, users, resamples=resamples, seed=seed)
    return drawn.figures(base, contrast=contrast, higher_is_better=higher_is_better, level=level)


@dataclass(frozen=True)
class DrawnModels:
    """One metric of many models and of all resamples of users, from which several contrasts can be taken.

    Attributes:
        value: [seeds] of the rows themselves, by the model's name.
        resamples: [count, seeds] by the model's name; resample r of all models is of the same users.
    """

    value: dict[str, np.ndarray]
    resamples: dict[str, np.ndarray]

    @classmethod
    def of(
        cls, statistics: Mapping[str, Sequence[UserStatistic]], users: int, *, resamples: int = 1000, seed: int = 0
    ) -> "DrawnModels":
        """Draw users for statistics by model, one for each seed; with fewer than `LEAST_USERS`, resamples are NaN.

        Raises:
            ValueError: unequal numbers of seeds, or none.
        """
        seeds = {name: len(of_model) for name, of_model in statistics.items()}
        if len(set(seeds.values())) > 1 or not all(seeds.values()):
            told = ", ".join(f"{name} {number}" for name, number in seeds.items())
            raise ValueError(f"Models must have equal numbers of seeds, at least one; got {told}.")
        found = resample([of_seed for of_model in statistics.values() for of_seed in of_model], users, resamples, seed)
        if users < LEAST_USERS:
            found.resamples.fill(np.nan)
        count = len(statistics)
        return cls(
            dict(zip(statistics, found.value.reshape(count, -1))),
            dict(zip(statistics, found.resamples.reshape(resamples, count, -1).swapaxes(0, 1))),
        )

    def figures(
        self, base: str, *, contrast: Contrast = np.subtract, higher_is_better: bool = True, level: float = 0.95
    ) -> dict[str, ModelFigure]:
        """Each model's metric, and against `base`; arguments as `compare`.

        Raises:
            ValueError: `base` is none of the models.
        """
        if base not in self.value:
            raise ValueError(f"No scores of the base model {base!r}; there are {', '.join(self.value) or 'none'}.")
        sign = 1.0 if higher_is_better else -1.0
        made = {}
        for name, value in self.value.items():
            against = None
            if name != base:
                difference = _estimate(
                    contrast(value, self.value[base]), contrast(self.resamples[name], self.resamples[base]), level
                )
                against = Comparison(difference, _verdict(difference, sign))
            made[name] = ModelFigure(_estimate(value, self.resamples[name], level), against)
        return made


def relative_improvements(value: np.ndarray, base: np.ndarray) -> np.ndarray:
    """RelaImpr in percent of AUCs against a base's, any shape; NaN where `prectr.metrics` refuses the base."""
    above_chance = np.where(base > 0.5, base - 0.5, np.nan)
    return (value - base) / above_chance * 100.0


def _estimate(by_seed: np.ndarray, resamples: np.ndarray, level: float) -> Estimate:
    """Of values [seeds] and their resamples [count, seeds]."""
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

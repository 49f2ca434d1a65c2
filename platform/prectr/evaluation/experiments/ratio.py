"""Ratios of two sums over users: their standard errors by the delta method, and differences of two variants.

    R      = sum a_u / sum b_u                                  a_u, b_u of user u of n in a variant
    Var R  = sum (a_u - R b_u)^2 / ((n - 1) n b^2)              b = mean of b_u: delta method
    D      = R_treatment - R_control,   Var D = sum of both
    L      = D / R_control,   Var L = Var R_t / R_c^2 + Var R_c R_t^2 / R_c^4

| symbol | variable |
|---|---|
| sum a, sum b, sum a^2, sum ab, sum b^2 | `Moments` |
| R, Var R | `Ratio.value`, `Ratio.variance` |
| D, L | `Difference.of`, `Difference.relative` |

For b_u = 1 this is the mean and Student's variance of the mean. Users are independent, rows of one user are not: a
test that treats rows as independent has too narrow intervals. Intervals use Student's t with Welch's degrees of freedom
(Deng, Knoblich and Lu, "Applying the Delta Method in Metric Analytics", 2018). All fields may be arrays with one
element per experiment.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

from prectr.metrics.comparison import Interval


@dataclass(frozen=True)
class Moments:
    """Sums over the users of a variant."""

    users: Any
    above: Any
    below: Any
    above_squared: Any
    product: Any
    below_squared: Any

    @classmethod
    def of(cls, above: np.ndarray, below: np.ndarray) -> "Moments":
        """Sums of arrays [..., n]; users are the last axis."""
        return cls(
            users=above.shape[-1],
            above=above.sum(axis=-1),
            below=below.sum(axis=-1),
            above_squared=np.einsum("...u,...u->...", above, above),
            product=np.einsum("...u,...u->...", above, below),
            below_squared=np.einsum("...u,...u->...", below, below),
        )


@dataclass(frozen=True)
class Ratio:
    """A ratio in one variant: NaN if all `below` are 0; its variance is NaN with fewer than two users."""

    value: Any
    variance: Any
    users: Any

    @classmethod
    def of(cls, moments: Moments) -> "Ratio":
        """The ratio of the two sums, and its variance."""
        with np.errstate(divide="ignore", invalid="ignore"):
            users, below = np.asarray(moments.users, float), np.asarray(moments.below, float)
            value = np.where(below > 0, moments.above / below, np.nan)
            squares = moments.above_squared - 2.0 * value * moments.product + value**2 * moments.below_squared
            variance = np.maximum(squares, 0.0) / (users - 1.0) * users / below**2
            return cls(value[()], np.where(users > 1, variance, np.nan)[()], users[()])


@dataclass(frozen=True)
class Difference:
    """An estimate of the treatment minus that of the control."""

    value: Any
    standard_error: Any
    degrees: Any
    """Degrees of freedom by Welch and Satterthwaite."""

    @classmethod
    def of(cls, control: Ratio, treatment: Ratio) -> "Difference":
        """The absolute difference D."""
        return cls(
            treatment.value - control.value,
            np.sqrt(control.variance + treatment.variance),
            _degrees(control, treatment),
        )

    @classmethod
    def relative(cls, control: Ratio, treatment: Ratio) -> "Difference":
        """The lift L; NaN if the control's value is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            base = np.where(np.asarray(control.value) == 0, np.nan, control.value)[()]
            variance = treatment.variance / base**2 + control.variance * treatment.value**2 / base**4
        return cls((treatment.value - base) / base, np.sqrt(variance), _degrees(control, treatment))

    def reach(self, level: float) -> Any:
        """Half the width of the interval for one look at a fixed time."""
        return stdtrit(self.degrees, (1 + level) / 2) * self.standard_error

    def interval(self, level: float) -> Interval:
        """The interval of one experiment for one look at a fixed time."""
        reach = self.reach(level)
        return Interval(float(self.value - reach), float(self.value + reach))

    @property
    def p_value(self) -> Any:
        """Two-sided p-value; NaN if the standard error is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            standardised = np.abs(self.value) / self.standard_error
        return 2.0 * stdtr(self.degrees, -standardised)


def _degrees(control: Ratio, treatment: Ratio) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        below = control.variance**2 / (control.users - 1) + treatment.variance**2 / (treatment.users - 1)
        return (control.variance + treatment.variance) ** 2 / below

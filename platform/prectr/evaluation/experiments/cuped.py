"""CUPED: the same difference with less noise, by what the same users did before the experiment.

    psi_u  = (a_u - R b_u) / b           during the experiment, R and b over all users
    chi_u  = (a0_u - R0 b0_u) / b0       the same measure before it
    theta  = Cov(psi, chi) / Var(chi)    over all users
    D_cv   = D - theta (mean chi of the treatment - mean chi of the control)
    Var    = sum over variants of Var(psi_v - theta chi) / n_v,   psi_v with the variant's own R and b

For a mean (b_u = 1) psi and chi are the values themselves, centred, which is Deng, Xu, Kohavi and Walker, "Improving
the Sensitivity of Online Controlled Experiments by Utilizing Pre-Experiment Data", 2013; for ratios they are linearised
by the delta method. Nothing the treatment does can reach back to chi, so D_cv estimates what D does. Who was not there
before counts as 0 of both sums.
"""

from dataclasses import dataclass

import numpy as np

from prectr.evaluation.experiments.ratio import Difference, Ratio


@dataclass(frozen=True)
class UserSums:
    """The two sums of a measure for each of n users."""

    above: np.ndarray
    below: np.ndarray

    def linearised(self) -> np.ndarray:
        """(a - R b) / b, [n]; zeros where nobody has a `below`."""
        total = self.below.sum()
        if not total:
            return np.zeros(len(self.above))
        ratio = self.above.sum() / total
        return (self.above - ratio * self.below) / (total / len(self.below))

    def of(self, users: np.ndarray) -> "UserSums":
        """Some users, by mask or number."""
        return UserSums(self.above[users], self.below[users])


@dataclass(frozen=True)
class Adjusted:
    """The adjusted difference, and how much it helped."""

    difference: Difference
    theta: float
    variance_reduction: float
    """1 - adjusted variance / plain variance; 0 where the time before says nothing."""


def adjust(during: UserSums, before: UserSums, treated: np.ndarray) -> Adjusted:
    """Adjust the difference of two variants.

    Args:
        during: sums of n users in the experiment.
        before: sums of the same users before it.
        treated: bool [n], who is in the treatment; the others are the control.
    """
    chi = before.linearised()
    psi = during.linearised()
    varies = chi.var()
    theta = float(np.mean((psi - psi.mean()) * (chi - chi.mean())) / varies) if varies > 0 else 0.0
    adjusted, plain = [], []
    for users in (~treated, treated):
        own = during.of(users)
        count = len(own.above)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = own.above.sum() / own.below.sum() - theta * chi[users].mean()
            residual = own.linearised()
            variance = np.var(residual - theta * chi[users], ddof=1) / count
            plain.append(np.var(residual, ddof=1) / count)
        adjusted.append(Ratio(value, variance, count))
    difference = Difference.of(*adjusted)
    reduction = 1.0 - difference.standard_error**2 / sum(plain) if sum(plain) > 0 else 0.0
    return Adjusted(difference, theta, float(reduction))

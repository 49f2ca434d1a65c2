"""CUPED: less noise in a difference, from the behaviour of the same users before the experiment.

    psi_u  = (a_u - R b_u) / b           during the experiment, R and b over all users
    chi_u  = (a0_u - R0 b0_u) / b0       the same measure before it
    theta  = Cov(psi, chi) / Var(chi)    over all users
    D_cv   = D - theta (mean chi of the treatment - mean chi of the control)
    Var    = sum over variants of Var(psi_v - theta chi) / n_v,   psi_v with the variant's own R and b

For a mean (b_u = 1) psi and chi are the centred values themselves, as in Deng, Xu, Kohavi and Walker, "Improving the
Sensitivity of Online Controlled Experiments by Utilizing Pre-Experiment Data", 2013. For ratios the delta method
linearises them. The treatment cannot change chi, so D_cv estimates the same effect as D. Users without rows before the
experiment count as 0 in both sums.

| symbol | variable |
|---|---|
| a_u, b_u | above, below of `during` |
| a0_u, b0_u | above, below of `before` |
| psi, chi | psi, chi (`UserSums.linearised`) |
| D | `ratio.Difference` |
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
        """(a_u - R b_u) / b, [n], with b the mean of b_u; zeros if all `below` are 0."""
        total = self.below.sum()
        if not total:
            return np.zeros(len(self.above))
        ratio = self.above.sum() / total
        return (self.above - ratio * self.below) / (total / len(self.below))

    def of(self, users: np.ndarray) -> "UserSums":
        """Sums of some users, chosen by mask or by number."""
        return UserSums(self.above[users], self.below[users])


@dataclass(frozen=True)
class Adjusted:
    """The adjusted difference and its gain in variance."""

    difference: Difference
    theta: float
    variance_reduction: float
    """1 - adjusted variance / plain variance; 0 if the behaviour before the experiment explains nothing."""


def adjust(during: UserSums, before: UserSums, treated: np.ndarray) -> Adjusted:
    """Compute the adjusted difference of two variants.

    Args:
        during: sums of n users in the experiment.
        before: sums of the same users before it.
        treated: bool [n]: True for users of the treatment, False for the control.
    """
    chi = before.linearised()
    psi = during.linearised()
    chi_variance = chi.var()
    theta = float(np.mean((psi - psi.mean()) * (chi - chi.mean())) / chi_variance) if chi_variance > 0 else 0.0
    adjusted, plain = [], []
    for users in (~treated, treated):
        sums = during.of(users)
        count = len(sums.above)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = sums.above.sum() / sums.below.sum() - theta * chi[users].mean()
            residual = sums.linearised()
            variance = np.var(residual - theta * chi[users], ddof=1) / count
            plain.append(np.var(residual, ddof=1) / count)
        adjusted.append(Ratio(value, variance, count))
    difference = Difference.of(*adjusted)
    reduction = 1.0 - difference.standard_error**2 / sum(plain) if sum(plain) > 0 else 0.0
    return Adjusted(difference, theta, float(reduction))

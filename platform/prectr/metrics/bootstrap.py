"""The bootstrap: the spread of a metric when users are drawn with replacement.

Rows of one user are correlated, so the bootstrap draws users, not rows. A resample draws as many users as the sample
has; a user drawn twice counts twice. All statistics get the same draws, so the difference of two models is paired.

A resample does not sort. A statistic keeps all that is independent of the draw and takes [users] counts:

    AUC   the number of negatives below a positive is an index into the negatives sorted by score, so one running sum of
          the users' counts gives the weighted rank sum. This is exact, also with ties. The DeLong (influence) form
          would be faster, but holds to first order only, and cold slices are small.
    GAUC  per user the sum of weight * AUC over the user's groups, and the sum of weight: two dot products.
    mean  per user the sum over rows and the number of rows: two dot products. Also for ratios of sums.
    NE    log loss over the entropy of the resample's click rate: three sums.
    RMS calibration error   per user and bin of the whole sample, the sum e of probability minus click. A squared sum is
          too large by the variance that clicks give it, and a resample adds the same again. Products of two different
          users have no such part, so only these are summed [ours]: with counts c, n rows and n_b of them in bin b,

              sum_b (n / n_b) sum_{u != v} c_u c_v e_ub e_vb / (rows counted)^2

          It is unbiased, as are its resamples, whose users drawn twice make no pair with themselves (the debiased
          squared error of Kumar, Liang and Ma, "Verified Uncertainty Calibration", NeurIPS 2019, for dependent rows).
          The mean distance of the bins (ECE) has no unbiased estimate.
    coverage  the candidates of the users drawn; drawing a user twice covers nothing more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from prectr.metrics.calibration import bins_of_rows, row_losses
from prectr.metrics.columns import checked_labels, checked_scores, group_codes
from prectr.metrics.lists import covered_share, log_missed
from prectr.metrics.roc import AucInGroups, GroupWeight


class UserStatistic(Protocol):
    """A metric of rows that can be computed again with other counts of users."""

    def of_counts(self, counts: np.ndarray) -> float:
        """The metric with user u counted `counts[u]` times, [users]; NaN if it has no value."""


@dataclass(frozen=True)
class _Auc:
    positive_user: np.ndarray
    below: np.ndarray
    """Number of negatives with a lower score, for each positive."""
    not_above: np.ndarray
    """Number of negatives with a lower or equal score, for each positive."""
    negative_user: np.ndarray
    """User of each negative, in the order of scores."""

    def of_counts(self, counts: np.ndarray) -> float:
        negatives = np.empty(len(self.negative_user) + 1, dtype=np.int64)
        negatives[0] = 0
        np.cumsum(counts[self.negative_user], out=negatives[1:])
        positives = counts[self.positive_user].astype(np.float64)
        pairs = positives.sum() * negatives[-1]
        if not pairs:
            return float("nan")
        return float(positives @ (negatives[self.below] + negatives[self.not_above])) / (2.0 * pairs)


@dataclass(frozen=True)
class _Ratio:
    """Sum of `above` divided by sum of `below`, each [users]."""

    above: np.ndarray
    below: np.ndarray

    def of_counts(self, counts: np.ndarray) -> float:
        total = float(counts @ self.below)
        return float(counts @ self.above) / total if total else float("nan")


@dataclass(frozen=True)
class _NormalisedEntropy:
    """Sums of losses, clicks and rows of each user, [users]."""

    loss: np.ndarray
    clicks: np.ndarray
    rows: np.ndarray

    def of_counts(self, counts: np.ndarray) -> float:
        rows = float(counts @ self.rows)
        rate = float(counts @ self.clicks) / rows if rows else 0.0
        if not 0 < rate < 1:
            return float("nan")
        entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
        return float(counts @ self.loss) / rows / entropy


@dataclass(frozen=True)
class _CalibrationRms:
    excess: np.ndarray
    """Sums of probability minus click, each times the root of all rows over the rows of its bin, [users, bins]."""
    own: np.ndarray
    """Sum of the squares of a user's excess, [users]."""
    rows: np.ndarray
    """Number of rows, [users]."""

    def of_counts(self, counts: np.ndarray) -> float:
        rows = float(counts @ self.rows)
        if not rows:
            return float("nan")
        pairs = float(((counts @ self.excess) ** 2).sum() - counts**2 @ self.own)
        return float(np.copysign(abs(pairs) ** 0.5 / rows, pairs))


@dataclass(frozen=True)
class _Coverage:
    user: np.ndarray
    """User of each relevant row."""
    candidate: np.ndarray
    """Candidate number of each relevant row."""
    candidates: int
    missed: np.ndarray
    """Logarithm of the chance that a relevant row is not in the first k."""

    def of_counts(self, counts: np.ndarray) -> float:
        drawn = counts[self.user] > 0
        return covered_share(self.candidate[drawn], self.candidates, self.missed[drawn])


class UserRows:
    """Labelled rows with their users; makes a statistic of a model's scores on them.

    Args:
        user: [n] integers or texts.
        clicked: [n] labels.

    Attributes:
        users: number of distinct users.

    Raises:
        ValueError: a row has no user, a label is neither 0 nor 1, or the lengths differ.

    Example:
        >>> rows = UserRows(np.array(["a", "a", "b", "b"]), np.array([1, 0, 0, 1]))
        >>> statistic = rows.auc(np.array([0.9, 0.2, 0.4, 0.3]))
        >>> [float(statistic.of_counts(np.array(counts))) for counts in ([1, 1], [2, 0])]
        [0.75, 1.0]
    """

    def __init__(self, user: np.ndarray, clicked: np.ndarray) -> None:
        if len(user) != len(clicked):
            raise ValueError(f"{len(user)} users for {len(clicked)} labels; pass columns of equal length.")
        self.codes, self.users = group_codes(user)
        self.clicked = checked_labels(clicked)

    def auc(self, score: np.ndarray) -> UserStatistic:
        """AUC of scores [n] over all rows."""
        score = checked_scores(score, self.clicked)
        negative = np.flatnonzero(~self.clicked)
        negative = negative[np.argsort(score[negative])]
        negative_scores, positive_scores = score[negative], score[self.clicked]
        return _Auc(
            positive_user=self.codes[self.clicked],
            below=np.searchsorted(negative_scores, positive_scores, side="left"),
            not_above=np.searchsorted(negative_scores, positive_scores, side="right"),
            negative_user=self.codes[negative],
        )

    def gauc(
        self, score: np.ndarray, group: np.ndarray | None = None, weight: GroupWeight = "impressions"
    ) -> UserStatistic:
        """GAUC of scores [n].

        Args:
            score: [n].
            group: [n] groups that each belong to one user, such as requests; users by default.
            weight: weight of a group.

        Raises:
            ValueError: a group has rows of several users; or as `prectr.metrics.group_auc`.
        """
        score = checked_scores(score, self.clicked)
        codes, groups = (self.codes, self.users) if group is None else group_codes(group)
        owner = self._owners(codes, groups)
        by_group = AucInGroups.of(codes, groups, self.clicked, score, weight)
        above = np.bincount(owner, weights=by_group.weight * np.nan_to_num(by_group.value), minlength=self.users)
        return _Ratio(above, np.bincount(owner, weights=by_group.weight, minlength=self.users))

    def log_loss(self, probability: np.ndarray) -> UserStatistic:
        """Log loss of click probabilities [n]."""
        return self.mean(row_losses(self.clicked, probability))

    def mean(self, value: np.ndarray) -> UserStatistic:
        """Mean of a value of rows [n]."""
        return _Ratio(self._sums(checked_scores(value, self.clicked)), self._rows())

    def predicted_over_actual(self, probability: np.ndarray) -> UserStatistic:
        """Sum of click probabilities [n] divided by the number of clicks."""
        return _Ratio(self._sums(checked_scores(probability, self.clicked)), self._sums(self.clicked))

    def normalised_entropy(self, probability: np.ndarray) -> UserStatistic:
        """Normalised entropy of click probabilities [n]."""
        losses = self._sums(row_losses(self.clicked, probability))
        return _NormalisedEntropy(losses, self._sums(self.clicked), self._rows())

    def calibration_rms(self, probability: np.ndarray, bins: int = 20) -> UserStatistic:
        """Root mean square of predicted minus actual click rate in bins of click probabilities [n], without chance.

        Every resample uses the bins of the whole sample. The square under the root is unbiased, so it is about 0 for
        true probabilities. If it is negative, the value is minus the root of its size: clicks fit the probabilities
        better than clicks drawn from them would.
        """
        bin_of_row = bins_of_rows(self.clicked, probability, bins)
        scale = np.sqrt(len(bin_of_row) / np.maximum(np.bincount(bin_of_row, minlength=bins), 1))
        cell = self.codes * bins + bin_of_row
        excess = np.bincount(cell, weights=probability - self.clicked, minlength=self.users * bins)
        excess = excess.reshape(self.users, bins) * scale
        return _CalibrationRms(excess, np.einsum("ub,ub->u", excess, excess), self._rows())

    def mean_of_lists(self, group: np.ndarray, by_list: np.ndarray) -> UserStatistic:
        """Mean of the values of lists, without NaN.

        Args:
            group: [n] list of each row; a list belongs to one user.
            by_list: [lists] values, in the order of `prectr.metrics.columns.group_codes`.

        Raises:
            ValueError: a list has rows of several users.
        """
        owner = self._owners(*group_codes(group))
        has_value = ~np.isnan(by_list)
        above = np.bincount(owner, weights=np.where(has_value, by_list, 0.0), minlength=self.users)
        return _Ratio(above, np.bincount(owner, weights=has_value, minlength=self.users))

    def coverage(self, candidate: np.ndarray, relevant: np.ndarray, chance: np.ndarray) -> UserStatistic:
        """Coverage of relevant candidates.

        Args:
            candidate: [n] integers or texts that identify a candidate.
            relevant: [n] booleans.
            chance: [n] `prectr.metrics.lists.top_chance` of a model's scores.
        """
        codes, candidates = group_codes(candidate[relevant])
        return _Coverage(self.codes[relevant], codes, candidates, log_missed(chance[relevant]))

    def _rows(self) -> np.ndarray:
        return np.bincount(self.codes, minlength=self.users).astype(np.float64)

    def _sums(self, value: np.ndarray) -> np.ndarray:
        return np.bincount(self.codes, weights=value, minlength=self.users)

    def _owners(self, codes: np.ndarray, groups: int) -> np.ndarray:
        """User of each group, [groups].

        Raises:
            ValueError: a group has rows of several users.
        """
        owner = np.zeros(groups, dtype=np.int64)
        owner[codes] = self.codes
        shared = int((owner[codes] != self.codes).sum())
        if shared:
            raise ValueError(f"{shared} rows are in a group of another user; each group must belong to one user.")
        return owner


@dataclass(frozen=True)
class Resampled:
    """Values of m statistics on the sample and on its resamples.

    Attributes:
        value: [m] values on the sample.
        resamples: [count, m] values on the resamples; row r has the same users for all statistics.
    """

    value: np.ndarray
    resamples: np.ndarray


def resample(statistics: Sequence[UserStatistic], users: int, count: int = 1000, seed: int = 0) -> Resampled:
    """Compute statistics on bootstrap resamples of users.

    Args:
        statistics: m statistics of the same `UserRows`.
        users: number of users.
        count: number of resamples.
        seed: seed of the draws; equal seeds draw the same users.

    Example:
        >>> rows = UserRows(np.array([0, 1, 2]), np.array([1, 0, 0]))
        >>> draws = resample([rows.mean(np.array([1.0, 2.0, 6.0]))], rows.users, count=5)
        >>> draws.value.tolist(), draws.resamples.shape
        ([3.0], (5, 1))
    """
    random = np.random.default_rng(seed)
    resamples = np.empty((count, len(statistics)))
    for row in resamples:
        counts = np.bincount(random.integers(users, size=users), minlength=users) if users else np.zeros(0, np.int64)
        row[:] = [statistic.of_counts(counts) for statistic in statistics]
    once = np.ones(users, dtype=np.int64)
    return Resampled(np.array([statistic.of_counts(once) for statistic in statistics]), resamples)


def percentile_interval(resamples: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Bounds of the central share `level` of resamples [count].

    Resamples that are NaN are left out. If they are more than one in a hundred, the bounds are NaN, because then a few
    users decide the metric (with five such users, one resample in 150 has none of them).

    Example:
        >>> percentile_interval(np.arange(101.0), level=0.5)
        (25.0, 75.0)
    """
    values = resamples[~np.isnan(resamples)]
    if len(values) < 0.99 * len(resamples) or not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

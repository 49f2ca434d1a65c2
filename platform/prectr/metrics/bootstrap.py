"""How far a metric would move with other users: the bootstrap, users drawn with replacement.

Rows of one user hang together, so users are drawn and not rows: a resample draws as many users as there are, and a user
who is drawn twice counts twice. Every statistic sees the same draws, so the difference of two models is paired.

No resample sorts anything. A statistic keeps what does not depend on the draw and then takes [users] counts:

    AUC   how many negatives lie below each positive is a place in the negatives sorted by score, so one running sum of
          the users' counts gives the weighted rank sum. This is exact, ties included; the DeLong (influence) form would
          be quicker still, but is right only to first order, and cold slices are small.
    GAUC  per user the sum of weight * AUC over the user's groups, and of weight: two dot products.
    mean  per user the sum over rows, and their number: two dot products. So for ratios of sums, and means over lists.
    NE    log loss over the entropy of the resample's own click rate: three sums.
    ECE   in the bins of the whole sample, per user and bin the sums of clicks and of probabilities.
    coverage  the candidates of the users that were drawn, however often: to be seen twice is to be seen.
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
    """A figure of rows that can be had again with some users counted several times and some not at all."""

    def of_counts(self, counts: np.ndarray) -> float:
        """The figure with user u counted `counts[u]` times, [users]; NaN where it has no value."""


@dataclass(frozen=True)
class _Auc:
    positive_user: np.ndarray
    below: np.ndarray
    """Per positive, how many negatives score less."""
    not_above: np.ndarray
    """Per positive, how many negatives score no more."""
    negative_user: np.ndarray
    """Of the negatives in the order of their scores."""

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
    """Sum over users of `above` over that of `below`, each [users]."""

    above: np.ndarray
    below: np.ndarray

    def of_counts(self, counts: np.ndarray) -> float:
        total = float(counts @ self.below)
        return float(counts @ self.above) / total if total else float("nan")


@dataclass(frozen=True)
class _NormalisedEntropy:
    """Losses, clicks and rows of each user, [users]."""

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
class _CalibrationError:
    """Sum of probability minus click of each user in each bin, [users, bins], and all rows of each user."""

    excess: np.ndarray
    rows: np.ndarray

    def of_counts(self, counts: np.ndarray) -> float:
        rows = float(counts @ self.rows)
        return float(np.abs(counts @ self.excess).sum()) / rows if rows else float("nan")


@dataclass(frozen=True)
class _Coverage:
    user: np.ndarray
    """Of each relevant row."""
    candidate: np.ndarray
    candidates: int
    missed: np.ndarray
    """Of each relevant row, the logarithm of the chance that it is not among the first."""

    def of_counts(self, counts: np.ndarray) -> float:
        drawn = counts[self.user] > 0
        return covered_share(self.candidate[drawn], self.candidates, self.missed[drawn])


class UserRows:
    """Labelled rows with their users, and the statistics of a model's scores of them.

    Attributes:
        users: how many different users there are.

    Raises:
        ValueError: a row has no user, a label is neither 0 nor 1, or the lengths differ.
    """

    def __init__(self, user: np.ndarray, clicked: np.ndarray) -> None:
        if len(user) != len(clicked):
            raise ValueError(f"{len(user)} users for {len(clicked)} labels; both must be of the same rows.")
        self.codes, self.users = group_codes(user)
        self.clicked = checked_labels(clicked)

    def auc(self, score: np.ndarray) -> UserStatistic:
        """AUC over all rows of scores [n]."""
        score = checked_scores(score, self.clicked)
        negative = np.flatnonzero(~self.clicked)
        negative = negative[np.argsort(score[negative])]
        ordered, positive_scores = score[negative], score[self.clicked]
        return _Auc(
            positive_user=self.codes[self.clicked],
            below=np.searchsorted(ordered, positive_scores, side="left"),
            not_above=np.searchsorted(ordered, positive_scores, side="right"),
            negative_user=self.codes[negative],
        )

    def gauc(
        self, score: np.ndarray, group: np.ndarray | None = None, weight: GroupWeight = "impressions"
    ) -> UserStatistic:
        """GAUC of scores [n].

        Args:
            score: [n].
            group: [n] groups that each belong to one user, such as requests; users by default.
            weight: what a group counts.

        Raises:
            ValueError: a group has rows of several users; or as `prectr.metrics.group_auc`.
        """
        score = checked_scores(score, self.clicked)
        codes, groups = (self.codes, self.users) if group is None else group_codes(group)
        owner = self._owners(codes, groups)
        found = AucInGroups.of(codes, groups, self.clicked, score, weight)
        above = np.bincount(owner, weights=found.weight * np.nan_to_num(found.value), minlength=self.users)
        return _Ratio(above, np.bincount(owner, weights=found.weight, minlength=self.users))

    def log_loss(self, probability: np.ndarray) -> UserStatistic:
        """Log loss of click probabilities [n]."""
        return self.mean(row_losses(self.clicked, probability))

    def mean(self, value: np.ndarray) -> UserStatistic:
        """Mean of any value of rows, [n]."""
        return _Ratio(self._sums(checked_scores(value, self.clicked)), self._rows())

    def predicted_over_actual(self, probability: np.ndarray) -> UserStatistic:
        """Sum of click probabilities [n] over the number of clicks."""
        return _Ratio(self._sums(checked_scores(probability, self.clicked)), self._sums(self.clicked))

    def normalised_entropy(self, probability: np.ndarray) -> UserStatistic:
        """Normalised entropy of click probabilities [n]."""
        losses = self._sums(row_losses(self.clicked, probability))
        return _NormalisedEntropy(losses, self._sums(self.clicked), self._rows())

    def calibration_error(self, probability: np.ndarray, bins: int = 20) -> UserStatistic:
        """ECE of click probabilities [n], in the bins that all rows together have."""
        of_row = bins_of_rows(self.clicked, probability, bins)
        place = self.codes * bins + of_row
        excess = np.bincount(place, weights=probability - self.clicked, minlength=self.users * bins)
        return _CalibrationError(excess.reshape(self.users, bins), self._rows())

    def mean_of_lists(self, group: np.ndarray, by_list: np.ndarray) -> UserStatistic:
        """Mean of lists' values, those that are NaN left out.

        Args:
            group: [n] the list of each row; a list belongs to one user.
            by_list: [lists], in the order of `prectr.metrics.columns.group_codes`.

        Raises:
            ValueError: a list has rows of several users.
        """
        owner = self._owners(*group_codes(group))
        known = ~np.isnan(by_list)
        above = np.bincount(owner, weights=np.where(known, by_list, 0.0), minlength=self.users)
        return _Ratio(above, np.bincount(owner, weights=known, minlength=self.users))

    def coverage(self, candidate: np.ndarray, relevant: np.ndarray, chance: np.ndarray) -> UserStatistic:
        """Coverage of relevant candidates.

        Args:
            candidate: [n] what is distinct.
            relevant: [n] booleans.
            chance: [n] `prectr.metrics.lists.top_chance` of a model's scores.
        """
        number, candidates = group_codes(candidate[relevant])
        return _Coverage(self.codes[relevant], number, candidates, log_missed(chance[relevant]))

    def _rows(self) -> np.ndarray:
        return np.bincount(self.codes, minlength=self.users).astype(np.float64)

    def _sums(self, value: np.ndarray) -> np.ndarray:
        return np.bincount(self.codes, weights=value, minlength=self.users)

    def _owners(self, codes: np.ndarray, groups: int) -> np.ndarray:
        """The user of each group, [groups]."""
        owner = np.zeros(groups, dtype=np.int64)
        owner[codes] = self.codes
        shared = int((owner[codes] != self.codes).sum())
        if shared:
            raise ValueError(f"{shared} rows are in a group of another user; users cannot be drawn one by one.")
        return owner


@dataclass(frozen=True)
class Resampled:
    """Statistics and what resamples made of them.

    Attributes:
        value: [m] of the sample itself.
        resamples: [count, m]; row r of all statistics is of the same users.
    """

    value: np.ndarray
    resamples: np.ndarray


def resample(statistics: Sequence[UserStatistic], users: int, count: int = 1000, seed: int = 0) -> Resampled:
    """Draw users again and again.

    Args:
        statistics: m statistics of the same `UserRows`.
        users: how many users there are.
        count: resamples.
        seed: of the draws; equal seeds draw the same users.
    """
    random = np.random.default_rng(seed)
    resamples = np.empty((count, len(statistics)))
    for row in resamples:
        drawn = np.bincount(random.integers(users, size=users), minlength=users) if users else np.zeros(0, np.int64)
        row[:] = [statistic.of_counts(drawn) for statistic in statistics]
    once = np.ones(users, dtype=np.int64)
    return Resampled(np.array([statistic.of_counts(once) for statistic in statistics]), resamples)


def percentile_interval(resamples: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of resamples [count].

    Resamples without a value are left out; NaN where they are more than one in a hundred, for then a handful of users
    decides (of five that matter, a resample in 150 has none).
    """
    known = resamples[~np.isnan(resamples)]
    if len(known) < 0.99 * len(resamples) or not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

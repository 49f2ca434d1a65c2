"""AUC, GAUC (AUC in groups) and RelaImpr; `prectr.metrics` defines them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from prectr.metrics.columns import checked_labels, checked_scores, group_codes
from prectr.metrics.ties import Ties

GroupWeight = Literal["impressions", "clicks", "uniform"]
"""Weight of a group in GAUC: its rows, its clicks, or 1."""


@dataclass(frozen=True)
class GroupAuc:
    """GAUC, its standard error, and the numbers of used and dropped groups."""

    value: float
    error: float
    """Standard error of `value`; the sample is the groups."""
    groups: int
    """Groups with both classes, which `value` is the mean of."""
    dropped: int
    """Groups of one class, which have no AUC."""


@dataclass(frozen=True)
class AucInGroups:
    """AUC of each of g groups.

    Attributes:
        value: [g] AUC; NaN for a group of one class.
        weight: [g] weight of the group in GAUC; 0 for a group of one class.
    """

    value: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(
        cls, codes: np.ndarray, groups: int, clicked: np.ndarray, score: np.ndarray, weight: GroupWeight
    ) -> "AucInGroups":
        """Compute the AUC of each group from rows.

        Args:
            codes: int64 [n] group of each row.
            groups: number of groups.
            clicked: [n] booleans.
            score: [n] without NaN.
            weight: weight of a group.

        Raises:
            ValueError: `weight` is unknown.
        """
        impressions = np.bincount(codes, minlength=groups)
        clicks = np.bincount(codes[clicked], minlength=groups)
        pairs = clicks * (impressions - clicks)
        both_classes = pairs > 0
        if not both_classes.all():  # most groups have no click, and sorting rows is most of the work
            rows = both_classes[codes]
            codes, clicked, score = codes[rows], clicked[rows], score[rows]
        ties = Ties.of(codes, score)
        middle = ties.before + (ties.size + 1) / 2
        rank_sum = np.bincount(ties.group, weights=ties.total(clicked) * middle, minlength=groups)
        value = np.full(groups, np.nan)
        np.divide(rank_sum - clicks * (clicks + 1) / 2, pairs, out=value, where=both_classes)
        weights = {"impressions": impressions, "clicks": clicks, "uniform": np.ones(groups)}
        if weight not in weights:
            raise ValueError(f"GAUC has no weight {weight!r}; use one of {', '.join(weights)}.")
        return cls(value, np.where(both_classes, weights[weight], 0.0))

    @classmethod
    def of_rows(
        cls, group: np.ndarray, clicked: np.ndarray, score: np.ndarray, weight: GroupWeight = "impressions"
    ) -> "AucInGroups":
        """Compute the AUC of each group from checked rows; arguments and errors as `group_auc`."""
        score = checked_scores(score, clicked, group)
        codes, groups = group_codes(group)
        return cls.of(codes, groups, checked_labels(clicked), score, weight)

    def mean(self) -> tuple[float, float]:
        """Weighted mean of the groups' values and its standard error; NaN if every group has one class."""
        return self._mean_of(self.value)

    def gain(self, base: np.ndarray) -> tuple[float, float]:
        """GAUC minus that of other scores of the same rows, and the standard error of this difference.

        Args:
            base: [g] AUC of each group by the other scores.

        Example:
            >>> user, clicked = np.array([0, 0, 1, 1]), np.array([1, 0, 1, 0])
            >>> good = AucInGroups.of_rows(user, clicked, np.array([0.9, 0.1, 0.8, 0.2]))
            >>> bad = AucInGroups.of_rows(user, clicked, np.array([0.1, 0.9, 0.2, 0.8]))
            >>> good.gain(bad.value)  # each user gains the same, so the gain has no error
            (1.0, 0.0)
        """
        return self._mean_of(self.value - base)

    def _mean_of(self, value: np.ndarray) -> tuple[float, float]:
        used = self.weight > 0
        if not used.any():
            return float("nan"), float("nan")
        weights, values = self.weight[used] / self.weight.sum(), value[used]
        mean = float(weights @ values)
        return mean, float(np.sqrt((weights**2) @ (values - mean) ** 2))


def auc(clicked: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve of scores [n] for labels [n]; NaN if the rows have one class only.

    Raises:
        ValueError: a score is NaN, a label is neither 0 nor 1, or the lengths differ.

    Example:
        >>> auc(np.array([1, 0, 1, 0]), np.array([0.9, 0.1, 0.3, 0.3]))  # the tie counts one half
        0.875
    """
    score = checked_scores(score, clicked)
    clicked = checked_labels(clicked)
    codes = np.zeros(len(score), dtype=np.int64)
    return float(AucInGroups.of(codes, 1, clicked, score, "uniform").value[0])


def group_auc(
    group: np.ndarray, clicked: np.ndarray, score: np.ndarray, weight: GroupWeight = "impressions"
) -> GroupAuc:
    """GAUC: weighted mean of the AUC in each group; NaN if every group has one class only.

    Args:
        group: [n] integers or texts, users or requests; rows with equal values form one group.
        clicked: [n] labels.
        score: [n].
        weight: weight of a group.

    Raises:
        ValueError: a score is NaN, a row has no group, a label is neither 0 nor 1, or the lengths differ.

    Example:
        >>> user = np.array(["a", "a", "a", "b", "b", "c"])
        >>> clicked = np.array([1, 0, 0, 0, 1, 0])
        >>> gauc = group_auc(user, clicked, np.array([0.8, 0.1, 0.2, 0.7, 0.6, 0.5]))
        >>> gauc.value, gauc.groups, gauc.dropped  # 3/5 x 1 + 2/5 x 0; user c never clicked
        (0.6, 2, 1)
    """
    by_group = AucInGroups.of_rows(group, clicked, score, weight)
    used = int((by_group.weight > 0).sum())
    return GroupAuc(*by_group.mean(), used, len(by_group.weight) - used)


def relative_improvement(value: float, base: float) -> float:
    """RelaImpr = ((AUC - 0.5) / (AUC_base - 0.5) - 1) * 100, in percent [paper].

    Raises:
        ValueError: the base is NaN, or at or below 0.5, where the ratio has no meaning.

    Example:
        >>> round(relative_improvement(0.66, 0.65), 2)
        6.67
    """
    if not base > 0.5:
        raise ValueError(f"RelaImpr needs a base AUC above 0.5, got {base:.4f}.")
    return ((value - 0.5) / (base - 0.5) - 1.0) * 100.0

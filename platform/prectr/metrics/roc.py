"""AUC, AUC inside groups, and RelaImpr; definitions are in `prectr.metrics`."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from prectr.metrics.columns import checked_labels, checked_scores, group_codes
from prectr.metrics.ties import Ties

GroupWeight = Literal["impressions", "clicks", "uniform"]
"""What a group counts in GAUC: its rows, its clicks, or one."""


@dataclass(frozen=True)
class GroupAuc:
    """GAUC with what was left out of it."""

    value: float
    error: float
    """Standard error of the value, groups as the sample."""
    groups: int
    dropped: int


@dataclass(frozen=True)
class AucInGroups:
    """The AUC of each of g groups; NaN for a group of one class.

    Attributes:
        value: [g].
        weight: [g] what the group counts in GAUC; 0 for a group of one class.
    """

    value: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(
        cls, codes: np.ndarray, groups: int, clicked: np.ndarray, score: np.ndarray, weight: GroupWeight
    ) -> "AucInGroups":
        """Of rows.

        Args:
            codes: int64 [n] group of each row.
            groups: how many groups there are.
            clicked: [n] booleans.
            score: [n] without NaN.
            weight: what a group counts.

        Raises:
            ValueError: no such weight.
        """
        impressions = np.bincount(codes, minlength=groups)
        clicks = np.bincount(codes[clicked], minlength=groups)
        pairs = clicks * (impressions - clicks)
        known = pairs > 0
        if not known.all():  # most groups have no click, and to sort their rows is most of the work
            rows = known[codes]
            codes, clicked, score = codes[rows], clicked[rows], score[rows]
        ties = Ties.of(codes, score)
        middle = ties.before + (ties.size + 1) / 2
        rank_sum = np.bincount(ties.group, weights=ties.total(clicked) * middle, minlength=groups)
        value = np.full(groups, np.nan)
        np.divide(rank_sum - clicks * (clicks + 1) / 2, pairs, out=value, where=known)
        weights = {"impressions": impressions, "clicks": clicks, "uniform": np.ones(groups)}
        if weight not in weights:
            raise ValueError(f"GAUC has no weight {weight!r}; take one of {', '.join(weights)}.")
        return cls(value, np.where(known, weights[weight], 0.0))


def auc(clicked: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve of scores [n] for labels [n]; NaN where only one class is there.

    Raises:
        ValueError: a score is NaN, a label is neither 0 nor 1, or the lengths differ.
    """
    score = checked_scores(score, clicked)
    clicked = checked_labels(clicked)
    everyone = np.zeros(len(score), dtype=np.int64)
    return float(AucInGroups.of(everyone, 1, clicked, score, "uniform").value[0])


def group_auc(
    group: np.ndarray, clicked: np.ndarray, score: np.ndarray, weight: GroupWeight = "impressions"
) -> GroupAuc:
    """Weighted mean of the AUC inside groups; NaN where every group has one class only.

    Args:
        group: [n] integers or texts, users or requests; rows of one value are one group.
        clicked: [n] labels.
        score: [n].
        weight: what a group counts.

    Raises:
        ValueError: a score is NaN, a row has no group, a label is neither 0 nor 1, or the lengths differ.
    """
    score = checked_scores(score, clicked, group)
    codes, groups = group_codes(group)
    found = AucInGroups.of(codes, groups, checked_labels(clicked), score, weight)
    known = found.weight > 0
    kept = int(known.sum())
    if not kept:
        return GroupAuc(float("nan"), float("nan"), 0, groups)
    weights = found.weight[known] / found.weight.sum()
    within = found.value[known]
    value = float(weights @ within)
    error = float(np.sqrt((weights**2) @ (within - value) ** 2))
    return GroupAuc(value, error, kept, groups - kept)


def relative_improvement(value: float, base: float) -> float:
    """RelaImpr = ((AUC - 0.5) / (AUC_base - 0.5) - 1) * 100, in percent [paper].

    Raises:
        ValueError: the base is at or below 0.5, where the ratio means nothing, or NaN.
    """
    if not base > 0.5:
        raise ValueError(f"RelaImpr needs a base AUC above 0.5, got {base:.4f}.")
    return ((value - 0.5) / (base - 0.5) - 1.0) * 100.0

"""Ranking and calibration metrics, vectorised. Every number's definition stands here, because libraries differ.

AUC    probability that a clicked row scores above a not clicked one; ties count one half.
GAUC   mean of per-group AUC, weighted by the group's impressions; groups of one class are dropped and counted [ours,
       the paper does not say]. Groups are users unless stated.
NDCG@k sum of gain / log2(1 + rank) over the first k of a list, over that of the best order; ties keep the rows' order;
       mean over lists with a positive gain.
ECE    mean distance of predicted and actual click rate in 20 bins of equal numbers of rows, weighted by rows.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GroupAuc:
    """GAUC with what was left out of it."""

    value: float
    error: float
    """Standard error of the value, groups as the sample."""
    groups: int
    dropped: int


def auc(clicked: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve of scores [n] for labels [n]; NaN where only one class is there.

    Raises:
        ValueError: a score is NaN.
    """
    clicked = np.asarray(clicked, dtype=bool)
    _refuse_nan(score)
    positives = int(clicked.sum())
    negatives = len(clicked) - positives
    if not positives or not negatives:
        return float("nan")
    ranks = _average_ranks(np.asarray(score), np.zeros(len(clicked), dtype=np.int64))
    return float((ranks[clicked].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def group_auc(group: np.ndarray, clicked: np.ndarray, score: np.ndarray) -> GroupAuc:
    """Impression-weighted mean of the AUC inside groups.

    Args:
        group: [n] any values that sort; rows of one value are one group.
        clicked: [n] labels.
        score: [n].

    Raises:
        ValueError: a score is NaN.
    """
    _refuse_nan(score)
    if not len(score):
        return GroupAuc(float("nan"), float("nan"), 0, 0)
    _, codes = np.unique(group, return_inverse=True)
    clicked = np.asarray(clicked, dtype=bool)
    size = np.bincount(codes).astype(np.float64)
    positives = np.bincount(codes, weights=clicked)
    negatives = size - positives
    ranks = _average_ranks(np.asarray(score), codes)
    rank_sum = np.bincount(codes, weights=np.where(clicked, ranks, 0.0))
    both = (positives > 0) & (negatives > 0)
    if not both.any():
        return GroupAuc(float("nan"), float("nan"), 0, int((~both).sum()))
    within = (rank_sum[both] - positives[both] * (positives[both] + 1) / 2) / (positives[both] * negatives[both])
    weights = size[both] / size[both].sum()
    value = float(weights @ within)
    error = float(np.sqrt((weights**2) @ (within - value) ** 2))
    return GroupAuc(value, error, int(both.sum()), int((~both).sum()))


def log_loss(clicked: np.ndarray, probability: np.ndarray) -> float:
    """Mean negative log-likelihood of clicks in nats."""
    bounded = np.clip(probability, 1e-7, 1 - 1e-7)
    return float(-np.mean(np.where(clicked, np.log(bounded), np.log1p(-bounded))))


def predicted_over_actual(clicked: np.ndarray, probability: np.ndarray) -> float:
    """Sum of predicted click probabilities over the number of clicks; 1 is calibrated in the large.

    NaN without clicks.
    """
    clicks = int(np.sum(clicked))
    return float(np.sum(probability) / clicks) if clicks else float("nan")


def calibration_error(clicked: np.ndarray, probability: np.ndarray, bins: int = 20) -> float:
    """Expected calibration error of click probabilities [n], in bins of equal mass."""
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    gaps = [abs(float(np.mean(probability[part])) - float(np.mean(clicked[part]))) for part in parts]
    return float(np.average(gaps, weights=[len(part) for part in parts]))


def ndcg(group: np.ndarray, gain: np.ndarray, score: np.ndarray, k: int) -> float:
    """NDCG@k, the mean over groups that hold a positive gain; NaN where none does.

    Args:
        group: [n] any values that sort; rows of one value are one list.
        gain: [n] at least 0.
        score: [n].

    Raises:
        ValueError: a score is NaN.
    """
    _refuse_nan(score)
    _, codes = np.unique(group, return_inverse=True)
    found, best = (_discounted(codes, gain, by, k) for by in (score, gain))
    kept = best > 0
    return float(np.mean(found[kept] / best[kept])) if kept.any() else float("nan")


def _discounted(codes: np.ndarray, gain: np.ndarray, by: np.ndarray, k: int) -> np.ndarray:
    """DCG@k of each group in the order of `by`, descending."""
    order = np.lexsort((-by, codes))
    ordered = codes[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(order)])
    place = np.arange(len(order)) - np.repeat(first, np.diff(np.r_[first, len(order)]))
    kept = place < k
    return np.bincount(ordered[kept], weights=gain[order][kept] / np.log2(2.0 + place[kept]), minlength=len(first))


def relative_improvement(value: float, base: float) -> float:
    """RelaImpr = ((AUC - 0.5) / (AUC_base - 0.5) - 1) * 100, in percent [paper].

    Raises:
        ValueError: the base is at or below 0.5, where the ratio means nothing.
    """
    if base <= 0.5:
        raise ValueError(f"RelaImpr needs a base AUC above 0.5, got {base:.4f}.")
    return ((value - 0.5) / (base - 0.5) - 1.0) * 100.0


def _average_ranks(score: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Rank of each score inside its group from 1, ties averaged."""
    order = np.lexsort((score, codes))
    ordered_codes, ordered_scores = codes[order], score[order]
    new_group = np.r_[True, ordered_codes[1:] != ordered_codes[:-1]]
    new_tie = new_group | np.r_[True, ordered_scores[1:] != ordered_scores[:-1]]
    group_start = np.flatnonzero(new_group)[np.cumsum(new_group) - 1]
    tie = np.cumsum(new_tie) - 1
    first = np.flatnonzero(new_tie)
    last = np.r_[first[1:], len(score)] - 1
    ranks = np.empty(len(score))
    ranks[order] = (first[tie] + last[tie]) / 2 - group_start + 1
    return ranks


def _refuse_nan(score: np.ndarray) -> None:
    bad = int(np.isnan(score).sum())
    if bad:
        raise ValueError(f"{bad} of {len(score)} scores are NaN; a ranking of them means nothing.")

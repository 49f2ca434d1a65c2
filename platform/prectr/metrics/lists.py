"""Metrics of ranked lists with graded relevance; definitions are in `prectr.metrics`.

A list is the rows of one group (a request's candidates, a query's judged items), best score first. Rows that tie are in
random order and every number is the expectation over it, which has a closed form for each: a block of ties shares the
discounts of its places (NDCG, top mean), its chance of a place among the first k (coverage), and the law of the first
relevant one of r among s rows (MRR).
"""

import numpy as np
from scipy.special import gammaln

from prectr.metrics.columns import checked_scores, group_codes
from prectr.metrics.ties import Ties


def ndcg(group: np.ndarray, gain: np.ndarray, score: np.ndarray, k: int) -> float:
    """NDCG@k, the mean over groups that hold a positive gain; NaN where none does.

    Args:
        group: [n] integers or texts; rows of one value are one list.
        gain: [n] at least 0: the grade itself, or 2^grade - 1, which favours the top grades.
        score: [n].
        k: depth, at least 1.

    Raises:
        ValueError: a score is NaN, a gain is negative or NaN, a row has no group, or the lengths differ.
    """
    score = checked_scores(score, group, gain)
    gain = np.asarray(gain, dtype=np.float64)
    if not (gain >= 0).all():
        raise ValueError(f"{int((~(gain >= 0)).sum())} of {len(gain)} gains are negative or NaN.")
    codes, groups = group_codes(group)
    discount = np.r_[0.0, np.cumsum(1.0 / np.log2(2.0 + np.arange(k)))]
    found, best = (_discounted(Ties.of(codes, -by), gain, discount, groups) for by in (score, gain))
    kept = best > 0
    return float(np.mean(found[kept] / best[kept])) if kept.any() else float("nan")


def mean_reciprocal_rank(group: np.ndarray, relevant: np.ndarray, score: np.ndarray) -> float:
    """Mean over groups with a relevant row of the inverse rank of the first relevant one; NaN where none has any.

    Args:
        group: [n] integers or texts; rows of one value are one list.
        relevant: [n] booleans.
        score: [n].

    Raises:
        ValueError: a score is NaN, a row has no group, or the lengths differ.
    """
    score = checked_scores(score, group, relevant)
    codes, _ = group_codes(group)
    ties = Ties.of(codes, -score)
    hits = ties.total(np.asarray(relevant, dtype=bool))
    hit = np.flatnonzero(hits)
    if not len(hit):
        return float("nan")
    _, earliest = np.unique(ties.group[hit], return_index=True)
    first = hit[earliest]
    return float(np.mean(_expected_inverse(ties.before[first], ties.size[first], hits[first])))


def top_mean(group: np.ndarray, value: np.ndarray, score: np.ndarray, k: int = 10) -> float:
    """Mean over lists of the mean value of their first k rows (of all, in a shorter list); NaN without rows.

    Args:
        group: [n] integers or texts; rows of one value are one list.
        value: [n] relevance levels or grades.
        score: [n].
        k: depth, at least 1.

    Raises:
        ValueError: a score is NaN, a row has no group, or the lengths differ.
    """
    score = checked_scores(score, group, value)
    if not len(score):
        return float("nan")
    codes, groups = group_codes(group)
    counted = np.arange(k + 1.0)
    total = _discounted(Ties.of(codes, -score), value, counted, groups)
    return float(np.mean(total / np.minimum(np.bincount(codes), k)))


def coverage(group: np.ndarray, candidate: np.ndarray, relevant: np.ndarray, score: np.ndarray, k: int = 10) -> float:
    """Share of the distinct relevant candidates that come into the first k of a list in which they are relevant [ours].

    A ranker that puts the same few items on top of every list covers little, however relevant they are. With ties, a
    candidate counts by its chance of being covered.

    Args:
        group: [n] integers or texts; rows of one value are one list: a request's exposed and unexposed candidates.
        candidate: [n] integers or texts: what is distinct, an item or a pair of query and item.
        relevant: [n] booleans; rows that are not relevant only take places.
        score: [n].
        k: depth, at least 1.

    Returns:
        The share; NaN where nothing is relevant.

    Raises:
        ValueError: a score is NaN, a row has no group or candidate, or the lengths differ.
    """
    score = checked_scores(score, group, candidate, relevant)
    relevant = np.asarray(relevant, dtype=bool)
    if not relevant.any():
        return float("nan")
    codes, _ = group_codes(group)
    ties = Ties.of(codes, -score)
    chance = (np.clip(k - ties.before, 0, ties.size) / ties.size)[ties.block_of_row()[relevant]]
    number, _ = group_codes(np.asarray(candidate)[relevant])
    with np.errstate(divide="ignore"):  # the logarithm of 0 is minus infinity, and that candidate is covered for sure
        missed = np.exp(np.bincount(number, weights=np.log1p(-chance)))
    return float(np.mean(1.0 - missed))


def _discounted(ties: Ties, value: np.ndarray, discount: np.ndarray, groups: int) -> np.ndarray:
    """[groups] expected sum of value times discount over a list's places; `discount` [k + 1] is cumulative, from 0."""
    depth = len(discount) - 1
    share = discount[np.minimum(ties.before + ties.size, depth)] - discount[np.minimum(ties.before, depth)]
    return np.bincount(ties.group, weights=ties.total(value) / ties.size * share, minlength=groups)


def _expected_inverse(before: np.ndarray, size: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """[b] expected 1 / rank of the first of `hits` rows among `size` in random order, after `before` others.

    P(it is the j-th) = C(size - j, hits - 1) / C(size, hits).
    """
    block = np.repeat(np.arange(len(size)), size)
    j = np.arange(len(block)) - np.repeat(np.cumsum(size) - size, size) + 1
    rows, among = hits[block], size[block]
    possible = j <= among - rows + 1
    block, j, rows, among = block[possible], j[possible], rows[possible], among[possible]
    chance = np.exp(_log_choose(among - j, rows - 1) - _log_choose(among, rows))
    return np.bincount(block, weights=chance / (before[block] + j), minlength=len(size))


def _log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    return np.asarray(gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0))

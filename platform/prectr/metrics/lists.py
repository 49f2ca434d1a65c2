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
    """NDCG@k, the mean over groups that hold a positive gain; NaN where none does. Arguments as `ndcg_by_list`."""
    return _mean(ndcg_by_list(group, gain, score, k))


def ndcg_by_list(group: np.ndarray, gain: np.ndarray, score: np.ndarray, k: int) -> np.ndarray:
    """NDCG@k of each list, [lists] in the order of `group_codes`; NaN without a positive gain.

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
    return np.divide(found, best, out=np.full(groups, np.nan), where=best > 0)


def mean_reciprocal_rank(group: np.ndarray, relevant: np.ndarray, score: np.ndarray) -> float:
    """Mean over groups with a relevant row of the inverse rank of the first relevant one; NaN where none has any.

    Arguments as `reciprocal_rank_by_list`.
    """
    return _mean(reciprocal_rank_by_list(group, relevant, score))


def reciprocal_rank_by_list(group: np.ndarray, relevant: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Inverse rank of each list's first relevant row, [lists] in the order of `group_codes`; NaN where there is none.

    Args:
        group: [n] integers or texts; rows of one value are one list.
        relevant: [n] booleans.
        score: [n].

    Raises:
        ValueError: a score is NaN, a row has no group, or the lengths differ.
    """
    score = checked_scores(score, group, relevant)
    codes, groups = group_codes(group)
    value = np.full(groups, np.nan)
    ties = Ties.of(codes, -score)
    hits = ties.total(np.asarray(relevant, dtype=bool))
    hit = np.flatnonzero(hits)
    if len(hit):
        _, earliest = np.unique(ties.group[hit], return_index=True)
        first = hit[earliest]
        value[ties.group[first]] = _expected_inverse(ties.before[first], ties.size[first], hits[first])
    return value


def top_mean(group: np.ndarray, value: np.ndarray, score: np.ndarray, k: int = 10) -> float:
    """Mean over lists of the mean value of their first k rows; NaN without rows. Arguments as `top_mean_by_list`."""
    return _mean(top_mean_by_list(group, value, score, k))


def top_mean_by_list(group: np.ndarray, value: np.ndarray, score: np.ndarray, k: int = 10) -> np.ndarray:
    """Mean value of each list's first k rows (of all, in a shorter list), [lists] in the order of `group_codes`.

    Args:
        group: [n] integers or texts; rows of one value are one list.
        value: [n] relevance levels or grades.
        score: [n].
        k: depth, at least 1.

    Raises:
        ValueError: a score is NaN, a row has no group, or the lengths differ.
    """
    score = checked_scores(score, group, value)
    codes, groups = group_codes(group)
    counted = np.arange(k + 1.0)
    total = _discounted(Ties.of(codes, -score), value, counted, groups)
    return total / np.minimum(np.bincount(codes, minlength=groups), k)


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
    relevant = np.asarray(relevant, dtype=bool)
    chance = top_chance(group, score, k)
    checked_scores(chance, candidate, relevant)
    number, candidates = group_codes(np.asarray(candidate)[relevant])
    return covered_share(number, candidates, log_missed(chance[relevant]))


def top_chance(group: np.ndarray, score: np.ndarray, k: int = 10) -> np.ndarray:
    """Chance of each row to be among the first k of its list, [n]; 0 or 1 but for rows that tie.

    Raises:
        ValueError: a score is NaN, a row has no group, or the lengths differ.
    """
    score = checked_scores(score, group)
    codes, _ = group_codes(group)
    ties = Ties.of(codes, -score)
    return (np.clip(k - ties.before, 0, ties.size) / np.maximum(ties.size, 1))[ties.block_of_row()]


def log_missed(chance: np.ndarray) -> np.ndarray:
    """Logarithm of 1 - chance, [n]; minus infinity where the chance is 1."""
    with np.errstate(divide="ignore"):
        return np.log1p(-chance)


def covered_share(number: np.ndarray, candidates: int, missed: np.ndarray) -> float:
    """Mean chance of being covered over the candidates that have rows; NaN without rows.

    Args:
        number: int64 [n] candidate of each row.
        candidates: how many there may be.
        missed: [n] logarithm of the chance that the row is not covered.
    """
    rows = np.bincount(number, minlength=candidates)
    if not rows.any():
        return float("nan")
    return float(np.mean(1.0 - np.exp(np.bincount(number, weights=missed, minlength=candidates)[rows > 0])))


def _mean(by_list: np.ndarray) -> float:
    known = by_list[~np.isnan(by_list)]
    return float(known.mean()) if len(known) else float("nan")


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

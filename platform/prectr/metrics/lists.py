"""Metrics of ranked lists with graded relevance; `prectr.metrics` defines them.

A list is the rows of one group (a request's candidates, a query's judged items), best score first. Rows with equal
scores are in random order, and each metric is the expectation over that order, in closed form: a block of ties shares
the discounts of its ranks (NDCG, top mean), the chance of a rank in the first k (coverage), and the distribution of the
first relevant rank among s rows with r relevant ones (MRR).
"""

import numpy as np
from scipy.special import gammaln

from prectr.metrics.columns import checked_scores, group_codes
from prectr.metrics.ties import Ties


def ndcg(group: np.ndarray, gain: np.ndarray, score: np.ndarray, k: int) -> float:
    """NDCG@k, the mean over lists with a positive gain; NaN without such a list. Arguments as `ndcg_by_list`.

    Example:
        >>> request = np.array(["r", "r", "r"])
        >>> round(ndcg(request, np.array([3, 0, 1]), np.array([0.2, 0.1, 0.9]), k=2), 4)
        0.7967
    """
    return _mean(ndcg_by_list(group, gain, score, k))


def ndcg_by_list(group: np.ndarray, gain: np.ndarray, score: np.ndarray, k: int) -> np.ndarray:
    """NDCG@k of each list, [lists] in the order of `group_codes`; NaN for a list without a positive gain.

    Args:
        group: [n] integers or texts; rows with equal values form one list.
        gain: [n] at least 0: the grade, or 2^grade - 1, which favours the top grades.
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
    by_score, best = (_discounted(Ties.of(codes, -key), gain, discount, groups) for key in (score, gain))
    return np.divide(by_score, best, out=np.full(groups, np.nan), where=best > 0)


def mean_reciprocal_rank(group: np.ndarray, relevant: np.ndarray, score: np.ndarray) -> float:
    """MRR: mean over lists with a relevant row of 1 / rank of the first relevant row; NaN without such a list.

    Arguments as `reciprocal_rank_by_list`.

    Example:
        >>> query = np.array([1, 1, 2, 2])
        >>> mean_reciprocal_rank(query, np.array([False, True, True, False]), np.array([0.9, 0.2, 0.8, 0.1]))
        0.75
    """
    return _mean(reciprocal_rank_by_list(group, relevant, score))


def reciprocal_rank_by_list(group: np.ndarray, relevant: np.ndarray, score: np.ndarray) -> np.ndarray:
    """1 / rank of each list's first relevant row, [lists] in the order of `group_codes`; NaN for a list without one.

    Args:
        group: [n] integers or texts; rows with equal values form one list.
        relevant: [n] booleans.
        score: [n].

    Raises:
        ValueError: a score is NaN, a row has no group, or the lengths differ.
    """
    score = checked_scores(score, group, relevant)
    codes, groups = group_codes(group)
    value = np.full(groups, np.nan)
    ties = Ties.of(codes, -score)
    relevant_rows = ties.total(np.asarray(relevant, dtype=bool))
    blocks = np.flatnonzero(relevant_rows)
    if len(blocks):
        _, earliest = np.unique(ties.group[blocks], return_index=True)
        first = blocks[earliest]
        value[ties.group[first]] = _expected_inverse(ties.before[first], ties.size[first], relevant_rows[first])
    return value


def top_mean(group: np.ndarray, value: np.ndarray, score: np.ndarray, k: int = 10) -> float:
    """Mean over lists of the mean value of their first k rows; NaN without rows. Arguments as `top_mean_by_list`.

    Example:
        >>> request = np.array(["r", "r", "r"])
        >>> top_mean(request, np.array([3.0, 0.0, 1.0]), np.array([0.9, 0.1, 0.5]), k=2)
        2.0
    """
    return _mean(top_mean_by_list(group, value, score, k))


def top_mean_by_list(group: np.ndarray, value: np.ndarray, score: np.ndarray, k: int = 10) -> np.ndarray:
    """Mean value of each list's first k rows (all rows of a shorter list), [lists] in the order of `group_codes`.

    Args:
        group: [n] integers or texts; rows with equal values form one list.
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
    """Share of the distinct relevant candidates that reach the first k of a list in which they are relevant [ours].

    A ranker that puts the same few items on top of every list covers little, however relevant they are. With ties, a
    candidate counts by its chance of being covered.

    Args:
        group: [n] integers or texts; rows with equal values form one list, such as a request's candidates.
        candidate: [n] integers or texts that identify a candidate: an item, or a pair of query and item.
        relevant: [n] booleans; rows that are not relevant only occupy ranks.
        score: [n].
        k: depth, at least 1.

    Returns:
        The share; NaN if no row is relevant.

    Raises:
        ValueError: a score is NaN, a row has no group or candidate, or the lengths differ.

    Example:
        >>> request, item = np.array([1, 1, 2, 2]), np.array(["a", "b", "a", "c"])
        >>> coverage(request, item, np.full(4, True), np.array([0.9, 0.1, 0.8, 0.2]), k=1)  # a, of a, b and c
        0.3333333333333333
    """
    relevant = np.asarray(relevant, dtype=bool)
    chance = top_chance(group, score, k)
    checked_scores(chance, candidate, relevant)
    codes, candidates = group_codes(np.asarray(candidate)[relevant])
    return covered_share(codes, candidates, log_missed(chance[relevant]))


def top_chance(group: np.ndarray, score: np.ndarray, k: int = 10) -> np.ndarray:
    """Chance of each row to be in the first k of its list, [n]: 0 or 1 except for ties.

    Raises:
        ValueError: a score is NaN, a row has no group, or the lengths differ.
    """
    score = checked_scores(score, group)
    codes, _ = group_codes(group)
    ties = Ties.of(codes, -score)
    return (np.clip(k - ties.before, 0, ties.size) / np.maximum(ties.size, 1))[ties.block_of_row()]


def log_missed(chance: np.ndarray) -> np.ndarray:
    """Logarithm of 1 - chance, [n]: minus infinity for a chance of 1."""
    with np.errstate(divide="ignore"):
        return np.log1p(-chance)


def covered_share(codes: np.ndarray, candidates: int, missed: np.ndarray) -> float:
    """Mean chance of being covered, over the candidates that have rows; NaN without rows.

    Args:
        codes: int64 [n] candidate of each row, below `candidates`.
        candidates: number of candidates, with or without rows.
        missed: [n] logarithm of the chance that the row is not in the first k.
    """
    rows = np.bincount(codes, minlength=candidates)
    if not rows.any():
        return float("nan")
    return float(np.mean(1.0 - np.exp(np.bincount(codes, weights=missed, minlength=candidates)[rows > 0])))


def _mean(by_list: np.ndarray) -> float:
    values = by_list[~np.isnan(by_list)]
    return float(values.mean()) if len(values) else float("nan")


def _discounted(ties: Ties, value: np.ndarray, discount: np.ndarray, groups: int) -> np.ndarray:
    """Expected sum over a list's ranks of value times discount, [groups]; `discount` [k + 1] is cumulative, from 0."""
    depth = len(discount) - 1
    share = discount[np.minimum(ties.before + ties.size, depth)] - discount[np.minimum(ties.before, depth)]
    return np.bincount(ties.group, weights=ties.total(value) / ties.size * share, minlength=groups)


def _expected_inverse(before: np.ndarray, size: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Expected 1 / rank of the first relevant row of b blocks in random order, [b].

    P(it is the j-th of the block) = C(size - j, relevant - 1) / C(size, relevant)

    Args:
        before: [b] rows of the list above the block.
        size: [b] rows of the block.
        relevant: [b] relevant rows of the block, at least 1.
    """
    block = np.repeat(np.arange(len(size)), size)
    j = np.arange(len(block)) - np.repeat(np.cumsum(size) - size, size) + 1
    hits, rows = relevant[block], size[block]
    possible = j <= rows - hits + 1
    block, j, hits, rows = block[possible], j[possible], hits[possible], rows[possible]
    chance = np.exp(_log_choose(rows - j, hits - 1) - _log_choose(rows, hits))
    return np.bincount(block, weights=chance / (before[block] + j), minlength=len(size))


def _log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    return np.asarray(gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0))

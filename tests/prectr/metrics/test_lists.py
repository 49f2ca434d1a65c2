"""List metrics against scikit-learn, ir-measures and the mean over every order of the ties."""

import math
from collections.abc import Callable, Iterator
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from prectr.metrics import coverage, mean_reciprocal_rank, ndcg, top_mean

K = 2
# list, candidate, grade, score: few scores, so that ties are the rule, and short lists, so that all orders are few.
LISTS = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=4), min_size=1, max_size=3
)


def _columns(lists: list[list[tuple[int, int]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows of lists (of grade and score), mixed up; a row's candidate is its place in its list."""
    rows = [(number, place, *pair) for number, pairs in enumerate(lists) for place, pair in enumerate(pairs)]
    mixed = np.random.default_rng(len(rows)).permutation(np.array(rows))
    return mixed[:, 0], mixed[:, 1], mixed[:, 2], mixed[:, 3].astype(float)


def _orders(pairs: list[tuple[int, int]]) -> Iterator[list[int]]:
    """Every order of a list's rows by descending score."""
    for order in permutations(range(len(pairs))):
        scores = [pairs[row][1] for row in order]
        if scores == sorted(scores, reverse=True):
            yield list(order)


def _mean_over_orders(lists: list[list[tuple[int, int]]], figure: Callable[[list[int]], float]) -> list[float]:
    """A figure of a list's grades in order, the mean over the orders of each list."""
    return [float(np.mean([figure([pairs[row][0] for row in order]) for order in _orders(pairs)])) for pairs in lists]


@given(LISTS)
def test_ndcg_is_the_mean_over_orders_of_ties(lists: list[list[tuple[int, int]]]) -> None:
    group, _, grade, score = _columns(lists)

    def discounted(grades: list[int]) -> float:
        return sum(value / math.log2(place + 2) for place, value in enumerate(grades[:K]))

    actual = _mean_over_orders(lists, discounted)
    best = [discounted(sorted((value for value, _ in pairs), reverse=True)) for pairs in lists]
    shares = [value / most for value, most in zip(actual, best) if most]
    expected = np.mean(shares) if shares else math.nan
    assert ndcg(group, grade, score, K) == pytest.approx(expected, nan_ok=True)


@given(LISTS)
def test_mean_reciprocal_rank_is_the_mean_over_orders_of_ties(lists: list[list[tuple[int, int]]]) -> None:
    group, _, grade, score = _columns(lists)
    lists_with = [pairs for pairs in lists if any(value >= 2 for value, _ in pairs)]
    ranks = _mean_over_orders(lists_with, lambda grades: 1 / (1 + [value >= 2 for value in grades].index(True)))
    expected = np.mean(ranks) if ranks else math.nan
    assert mean_reciprocal_rank(group, grade >= 2, score) == pytest.approx(expected, nan_ok=True)


@given(LISTS)
def test_top_mean_is_the_mean_over_orders_of_ties(lists: list[list[tuple[int, int]]]) -> None:
    group, _, grade, score = _columns(lists)
    assert top_mean(group, grade, score, K) == pytest.approx(
        np.mean(_mean_over_orders(lists, lambda grades: float(np.mean(grades[:K]))))
    )


@given(LISTS)
def test_coverage_is_the_mean_over_orders_of_ties(lists: list[list[tuple[int, int]]]) -> None:
    group, candidate, grade, score = _columns(lists)
    relevant = {place for pairs in lists for place, (value, _) in enumerate(pairs) if value >= 2}
    shares = [
        len({row for pairs, order in zip(lists, orders) for row in order[:K] if pairs[row][0] >= 2}) / len(relevant)
        for orders in product(*(list(_orders(pairs)) for pairs in lists))
        if relevant
    ]
    expected = np.mean(shares) if shares else math.nan
    assert coverage(group, candidate, grade >= 2, score, K) == pytest.approx(expected, nan_ok=True)


def test_ndcg_equals_scikit_learn() -> None:
    random = np.random.default_rng(3)
    grade, score = random.integers(0, 4, (30, 25)), random.integers(0, 12, (30, 25)) / 7.0
    group = np.repeat(np.arange(30), 25)
    assert ndcg(group, grade.ravel(), score.ravel(), 10) == pytest.approx(ndcg_score(grade, score, k=10))


def test_lists_equal_ir_measures() -> None:
    ir_measures = pytest.importorskip("ir_measures")
    random = np.random.default_rng(4)
    grade = random.integers(0, 4, (40, 30)) * random.integers(0, 2, (40, 30)) * random.integers(0, 2, (40, 30))
    grade[:, 0] = 1  # it counts lists without a relevant row as 0, we leave them out
    score = random.permutation(40 * 30).reshape(40, 30).astype(float)
    cells = [(str(query), str(item)) for query in range(40) for item in range(30)]
    judged = [ir_measures.Qrel(*cell, int(value)) for cell, value in zip(cells, grade.ravel())]
    run = [ir_measures.ScoredDoc(*cell, float(value)) for cell, value in zip(cells, score.ravel())]
    theirs = ir_measures.calc_aggregate([ir_measures.nDCG @ 10, ir_measures.RR(rel=2), ir_measures.RR], judged, run)
    group, flat = np.repeat(np.arange(40), 30), grade.ravel()
    assert ndcg(group, flat, score.ravel(), 10) == pytest.approx(theirs[ir_measures.nDCG @ 10])
    assert mean_reciprocal_rank(group, flat >= 1, score.ravel()) == pytest.approx(theirs[ir_measures.RR])
    # Lists without a grade of 2 or more are left out by us and 0 to them.
    share = (grade >= 2).any(1).mean()
    assert mean_reciprocal_rank(group, flat >= 2, score.ravel()) * share == pytest.approx(theirs[ir_measures.RR(rel=2)])


def test_coverage_counts_distinct_candidates() -> None:
    """Item a is on top of both lists and relevant in both; b and c are relevant and never on top: one of three."""
    group, item = np.array([0, 0, 1, 1]), np.array(["a", "b", "a", "c"])
    assert coverage(group, item, np.ones(4, dtype=bool), np.array([2.0, 1.0, 2.0, 1.0]), k=1) == pytest.approx(1 / 3)
    # On top of a list in which it is not relevant, it is not covered: only b is.
    relevant = np.array([True, True, False, True])
    assert coverage(group, item, relevant, np.array([1.0, 2.0, 2.0, 1.0]), k=1) == pytest.approx(1 / 3)


def test_nothing_has_no_lists() -> None:
    nothing = np.array([])
    assert math.isnan(ndcg(nothing, nothing, nothing, 10))
    assert math.isnan(mean_reciprocal_rank(nothing, nothing, nothing))
    assert math.isnan(top_mean(nothing, nothing, nothing))
    assert math.isnan(coverage(nothing, nothing, nothing, nothing))


def test_bad_rows_are_refused() -> None:
    group, ones, broken = np.zeros(3, dtype=int), np.ones(3), np.array([0.1, np.nan, np.nan])
    for figure in (
        lambda score: ndcg(group, ones, score, 10),
        lambda score: mean_reciprocal_rank(group, ones, score),
        lambda score: top_mean(group, ones, score),
        lambda score: coverage(group, group, ones, score),
    ):
        with pytest.raises(ValueError, match="2 of 3 scores are NaN"):
            figure(broken)
    with pytest.raises(ValueError, match="1 of 3 gains are negative or NaN"):
        ndcg(group, np.array([1, 0, -1]), ones, 10)

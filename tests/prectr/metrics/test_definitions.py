"""AUC, GAUC and RelaImpr against scikit-learn and against plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from prectr.metrics import GroupWeight, auc, group_auc, relative_improvement

# Few distinct scores, so that ties are the rule; few users, so that some have one class only.
ROWS = st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(-3, 3)), min_size=1, max_size=40)


def _columns(rows: list[tuple[int, bool, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    user, clicked, score = zip(*rows)
    return np.array([f"u{u}" for u in user]), np.array(clicked), np.array(score) / 7


def _slow_auc(clicked: np.ndarray, score: np.ndarray) -> float:
    pairs = [(p, n) for p in score[clicked] for n in score[~clicked]]
    return sum((p > n) + 0.5 * (p == n) for p, n in pairs) / len(pairs) if pairs else math.nan


@given(ROWS)
def test_auc_equals_scikit_learn(rows: list[tuple[int, bool, int]]) -> None:
    _, clicked, score = _columns(rows)
    if clicked.all() or not clicked.any():
        assert math.isnan(auc(clicked, score))
    else:
        assert auc(clicked, score) == pytest.approx(roc_auc_score(clicked, score))


@pytest.mark.parametrize("weight", ["impressions", "clicks", "uniform"])
@given(rows=ROWS)
def test_group_auc_equals_a_loop_over_users(weight: GroupWeight, rows: list[tuple[int, bool, int]]) -> None:
    user, clicked, score = _columns(rows)
    values, weights, dropped = [], [], 0
    for name in sorted(set(user)):
        rows_of_user = user == name
        value = _slow_auc(clicked[rows_of_user], score[rows_of_user])
        if math.isnan(value):
            dropped += 1
        else:
            values.append(value)
            weights.append(
                {"impressions": rows_of_user.sum(), "clicks": clicked[rows_of_user].sum(), "uniform": 1}[weight]
            )
    actual = group_auc(user, clicked, score, weight)
    assert (actual.groups, actual.dropped) == (len(values), dropped)
    expected = np.average(values, weights=weights) if values else math.nan
    assert actual.value == pytest.approx(expected, nan_ok=True)


def test_groups_may_be_any_numbers_or_texts() -> None:
    numbers = np.array([7, 7, 10**15, 10**15, -3, -3])
    clicked, score = np.array([1, 0, 0, 1, 1, 1]), np.array([2.0, 1.0, 2.0, 1.0, 1.0, 1.0])
    for group in (numbers, numbers.astype(str), numbers.astype(str).astype(object), np.array([0, 0, 1, 1, 5, 5])):
        actual = group_auc(group, clicked, score)
        assert (actual.value, actual.groups, actual.dropped) == (0.5, 2, 1)


def test_constant_scores_are_chance() -> None:
    user, clicked = np.arange(12) // 4, np.tile([1, 0, 0], 4)
    assert auc(clicked, np.ones(12)) == 0.5
    assert group_auc(user, clicked, np.ones(12)).value == 0.5


def test_standard_error_of_group_auc_by_hand() -> None:
    # Users of 2 and 6 rows with AUC 1 and 0.5: mean 0.625, error sqrt((.25 x .375)^2 + (.75 x .125)^2).
    user = np.array([1, 1, 2, 2, 2, 2, 2, 2])
    clicked = np.array([1, 0, 1, 0, 0, 0, 0, 0], dtype=bool)
    score = np.array([2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    actual = group_auc(user, clicked, score)
    assert actual.value == pytest.approx(0.625)
    assert actual.error == pytest.approx((2 * (0.25 * 0.375) ** 2) ** 0.5)


def test_nothing_has_no_area() -> None:
    nothing = np.array([])
    assert math.isnan(auc(nothing, nothing))
    actual = group_auc(nothing, nothing, nothing)
    assert math.isnan(actual.value) and (actual.groups, actual.dropped) == (0, 0)


def test_nan_scores_are_refused() -> None:
    score = np.array([0.1, np.nan, np.nan])
    with pytest.raises(ValueError, match="2 of 3 scores are NaN"):
        auc(np.array([1, 0, 1]), score)
    with pytest.raises(ValueError, match="2 of 3 scores are NaN"):
        group_auc(np.array([1, 1, 1]), np.array([1, 0, 1]), score)


def test_relative_improvement_of_the_paper() -> None:
    """PRECTR against Wide&Deep, and V2 against Wide&Deep, from the published AUCs."""
    assert relative_improvement(0.7581, 0.7532) == pytest.approx(1.93, abs=0.01)
    assert relative_improvement(0.7674, 0.7532) == pytest.approx(5.61, abs=0.01)


@pytest.mark.parametrize("base", [0.5, 0.4])
def test_relative_improvement_needs_a_base_above_chance(base: float) -> None:
    with pytest.raises(ValueError, match=r"base AUC above 0\.5"):
        relative_improvement(0.7, base)


def test_a_base_without_value_is_refused() -> None:
    with pytest.raises(ValueError, match="got nan"):
        relative_improvement(0.7, math.nan)


def test_bad_columns_are_refused() -> None:
    clicked, score = np.array([1, 0, 1]), np.array([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="1 of 3 rows have no group"):
        group_auc(np.array(["u", None, "v"], dtype=object), clicked, score)
    with pytest.raises(ValueError, match="3 scores for 2 rows"):
        auc(clicked[:2], score)
    with pytest.raises(ValueError, match="2 of 3 labels are neither 0 nor 1"):
        auc(np.array([2, 0, np.nan]), score)
    with pytest.raises(ValueError, match="no weight 'rows'"):
        group_auc(clicked, clicked, score, "rows")  # type: ignore[arg-type]

"""Metrics against scikit-learn and against plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from prectr.metrics import auc, group_auc, log_loss, predicted_over_actual, relative_improvement

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


@given(ROWS)
def test_group_auc_equals_a_loop_over_users(rows: list[tuple[int, bool, int]]) -> None:
    user, clicked, score = _columns(rows)
    values, weights, dropped = [], [], 0
    for name in sorted(set(user)):
        own = user == name
        value = _slow_auc(clicked[own], score[own])
        if math.isnan(value):
            dropped += 1
        else:
            values.append(value)
            weights.append(own.sum())
    found = group_auc(user, clicked, score)
    assert (found.groups, found.dropped) == (len(values), dropped)
    expected = np.average(values, weights=weights) if values else math.nan
    assert found.value == pytest.approx(expected, nan_ok=True)


def test_standard_error_of_group_auc_by_hand() -> None:
    # Users of 2 and 6 rows with AUC 1 and 0.5: mean 0.625, error sqrt((.25 x .375)^2 + (.75 x .125)^2).
    user = np.array([1, 1, 2, 2, 2, 2, 2, 2])
    clicked = np.array([1, 0, 1, 0, 0, 0, 0, 0], dtype=bool)
    score = np.array([2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    found = group_auc(user, clicked, score)
    assert found.value == pytest.approx(0.625)
    assert found.error == pytest.approx((2 * (0.25 * 0.375) ** 2) ** 0.5)


def test_group_auc_of_nothing() -> None:
    assert math.isnan(group_auc(np.array([]), np.array([]), np.array([])).value)


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


def test_calibration_by_hand() -> None:
    clicked, probability = np.array([True, False, False, False]), np.array([0.5, 0.25, 0.2, 0.05])
    assert predicted_over_actual(clicked, probability) == pytest.approx(1.0)
    assert math.isnan(predicted_over_actual(np.zeros(4, dtype=bool), probability))
    assert log_loss(clicked, probability) == pytest.approx(sklearn_log_loss(clicked, probability))
    assert math.isfinite(log_loss(np.array([True]), np.array([0.0])))

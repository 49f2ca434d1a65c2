import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, ndcg_score

from prectr.evaluation.relevance_quality import level_figures, mean_ndcg
from prectr.metrics.agreement import quadratic_kappa

grades = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40)


@given(grades)
def test_kappa_equals_scikit_learn(pairs):
    truth, predicted = np.array(pairs).T
    mine = quadratic_kappa(truth, predicted)
    if mine is None:
        assert len({*truth, *predicted}) == 1
    else:
        assert np.isclose(mine, cohen_kappa_score(truth, predicted, weights="quadratic", labels=range(4)))


def test_ndcg_equals_scikit_learn_query_by_query():
    generator = np.random.default_rng(1)
    queries = np.repeat(["a", "b", "c", "d"], 15)
    truth, scores = generator.integers(0, 4, 60), generator.random(60)
    truth[queries == "d"] = 0
    expected = [ndcg_score([2.0 ** truth[queries == q] - 1], [scores[queries == q]], k=10) for q in "abc"]
    assert np.isclose(mean_ndcg(pl.Series(queries), truth, scores, 10), np.mean(expected))


def test_a_perfect_model_and_one_class():
    truth = np.array([0, 1, 2, 3])
    figures = level_figures(pl.Series(["q"] * 4), truth, np.eye(4))
    assert figures == {"kappa": 1.0, "macro_f1": 1.0, "auc": 1.0, "ndcg_10": 1.0, "rmse": 0.0}  # four digits
    assert level_figures(pl.Series(["q"] * 2), np.array([3, 3]), np.eye(4)[[3, 3]])["auc"] is None

"""Tolerance posteriors: the likelihood against a plain loop, and thresholds recovered from simulated clicks."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prectr.preferences.examination import Examination
from prectr.preferences.fit import FitSample, PreferenceModel, fit_preference_model
from prectr.preferences.tolerance import (
    GRID,
    GRID_SIZE,
    ClickParameters,
    log_likelihood,
    moments,
    posterior,
    predictive,
)

CLICK = ClickParameters(a=0.4, s=0.1, eps=0.01)
FLAT = np.full(GRID_SIZE, 1 / GRID_SIZE)
ROWS = st.lists(st.tuples(st.booleans(), st.floats(0, 1), st.floats(0.05, 1)), min_size=1, max_size=12)


def _probability(relevance: float, exam: float, threshold: float) -> float:
    return exam * (CLICK.eps + CLICK.a / (1 + math.exp(-(relevance - threshold) / CLICK.s)))


def _draw(rng: np.random.Generator, threshold: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw clicks, relevance and examination, one row for each threshold."""
    relevance = rng.random(len(threshold))
    exam = rng.integers(1, 11, len(threshold)).astype(float) ** -1.0
    probability = exam * (CLICK.eps + CLICK.a / (1 + np.exp(-(relevance - threshold) / CLICK.s)))
    return rng.random(len(threshold)) < probability, relevance, exam


@given(ROWS)
def test_log_likelihood_equals_a_loop(rows: list[tuple[bool, float, float]]) -> None:
    clicked, relevance, exam = (np.array(column) for column in zip(*rows))
    likelihoods = log_likelihood(clicked, relevance, exam, CLICK)
    for i, (was_clicked, rel, looked) in enumerate(rows):
        for j, threshold in enumerate(GRID):
            p = _probability(rel, looked, threshold)
            assert likelihoods[i, j] == pytest.approx(math.log(p if was_clicked else 1 - p), rel=1e-9)


@given(ROWS, st.integers(0, 12))
def test_rows_add_up(rows: list[tuple[bool, float, float]], cut: int) -> None:
    """Updating by one day after the other gives the posterior of both days."""
    clicked, relevance, exam = (np.array(column) for column in zip(*rows))
    sums = [
        log_likelihood(clicked[part], relevance[part], exam[part], CLICK).sum(axis=0)[None, :]
        for part in (slice(None, cut), slice(cut, None), slice(None))
    ]
    in_turn = posterior(sums[1], posterior(sums[0], FLAT)[0])
    np.testing.assert_allclose(in_turn, posterior(sums[2], FLAT), atol=1e-9)


def test_nothing_seen_gives_the_prior() -> None:
    prior = np.linspace(1, 2, GRID_SIZE) / np.linspace(1, 2, GRID_SIZE).sum()
    np.testing.assert_allclose(posterior(np.zeros((2, GRID_SIZE)), prior), [prior, prior])
    np.testing.assert_allclose(posterior(np.zeros((2, GRID_SIZE)), np.stack([prior, FLAT])), [prior, FLAT])


def test_likelihood_of_a_long_history_does_not_overflow() -> None:
    sums = np.full((1, GRID_SIZE), -1e6)
    sums[0, 3] = -1e6 + 50
    assert posterior(sums, FLAT)[0, 3] == pytest.approx(1.0)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_posterior_concentrates_on_the_true_threshold(threshold: float) -> None:
    rng = np.random.default_rng(3)
    few, many = (
        moments(posterior(log_likelihood(*_draw(rng, np.full(n, threshold)), CLICK).sum(axis=0)[None, :], FLAT))
        for n in (60, 6000)
    )
    assert many[0][0] == pytest.approx(threshold, abs=0.06)
    assert many[1][0] < 0.05 < few[1][0]


def test_moments_by_hand() -> None:
    two = np.zeros((1, GRID_SIZE))
    two[0, [2, 6]] = 0.25, 0.75
    mean, deviation = moments(two)
    assert mean[0] == pytest.approx(0.25 * GRID[2] + 0.75 * GRID[6])
    assert deviation[0] == pytest.approx(math.sqrt(0.25 * 0.75) * (GRID[6] - GRID[2]))


def test_predictive_is_the_mean_over_thresholds() -> None:
    rng = np.random.default_rng(0)
    distribution = rng.dirichlet(np.ones(GRID_SIZE), 3)
    relevance = np.array([0.0, 0.4, 1.0])
    expected = [
        sum(weight * _probability(rel, 1.0, threshold) for weight, threshold in zip(row, GRID))
        for row, rel in zip(distribution, relevance)
    ]
    np.testing.assert_allclose(predictive(distribution, relevance, CLICK), expected)


@pytest.fixture(scope="module")
def fitted() -> tuple[PreferenceModel, float]:
    """A model fitted on 500 users whose thresholds spread around 0.55, and their true mean."""
    rng = np.random.default_rng(5)
    user = np.repeat(np.arange(500), 60)
    threshold = np.clip(rng.normal(0.55, 0.15, 500), 0.1, 1.0)
    clicked, relevance, exam = _draw(rng, threshold[user])
    shown = pl.DataFrame(
        {
            "user_id": [f"u{u}" for u in user],
            "query": [f"q{q}" for q in rng.integers(0, 40, len(user))],
            "item_id": "i",
            "brand": None,
            "category": "c",
            "position": np.rint(1 / exam).astype(np.int32),
            "clicked": clicked,
            "expected": relevance,
            "rows": 1,
        },
        schema_overrides={"brand": pl.String},
    )
    categories = pl.DataFrame({"query": [f"q{q}" for q in range(40)], "category": ["c"] * 40})
    sample = FitSample(shown, shown, shown)
    return fit_preference_model(sample, Examination(1.0, "known", 0), categories), float(threshold.mean())


def test_click_curve_and_prior_are_recovered(fitted: tuple[PreferenceModel, float]) -> None:
    model, truth = fitted
    assert model.click.a == pytest.approx(CLICK.a, abs=0.08)
    assert model.click.eps == pytest.approx(CLICK.eps, abs=0.01)
    assert model.user_centre == pytest.approx(truth, abs=0.06)


def test_priors_are_distributions(fitted: tuple[PreferenceModel, float]) -> None:
    for prior in (fitted[0].user_prior, fitted[0].query_prior, *fitted[0].category_query_prior.values()):
        assert prior.shape == (GRID_SIZE,)
        assert prior.sum() == pytest.approx(1.0) and (prior > 0).all()


def test_queries_back_off_to_their_category_then_to_all(fitted: tuple[PreferenceModel, float]) -> None:
    model = fitted[0]
    priors = model.query_priors(["c", None, "never seen"])
    np.testing.assert_array_equal(priors, [model.category_query_prior["c"], model.query_prior, model.query_prior])


def test_parameters_read_back(tmp_path, fitted: tuple[PreferenceModel, float]) -> None:  # type: ignore[no-untyped-def]
    from prectr.core.artifacts import write_json

    write_json(tmp_path / "parameters.json", fitted[0].to_json())
    read = PreferenceModel.load(tmp_path / "parameters.json")
    assert (read.click, read.examination) == (fitted[0].click, fitted[0].examination)
    np.testing.assert_array_equal(read.user_prior, fitted[0].user_prior)
    np.testing.assert_array_equal(read.query_priors(["c"]), fitted[0].query_priors(["c"]))


@given(st.integers(1, 10))
def test_examination_is_a_power_of_the_position(position: int) -> None:
    assert Examination(2.0, "test", 0)(np.array([position]))[0] == pytest.approx(position**-2.0)

"""Verdicts: right about 95 times of 100 when nothing is different, and able to see what is."""

import math
from functools import partial

import numpy as np
import pytest

from prectr.metrics import auc, relative_improvement
from prectr.metrics.bootstrap import UserRows
from prectr.metrics.comparison import DrawnModels, compare, relative_improvements

USERS, EACH = 80, 6


def _rows(random: np.random.Generator) -> tuple[UserRows, np.ndarray]:
    """Rows and the logit that made their labels; users differ in how easy they are to tell."""
    user = np.repeat(np.arange(USERS), EACH)
    logit = random.normal(-0.5, 1.0, len(user)) * random.lognormal(0, 0.5, USERS)[user]
    return UserRows(user, random.random(len(user)) < 1 / (1 + np.exp(-logit))), logit


def _models(
    random: np.random.Generator, logit: np.ndarray, seeds: int, apart: float, wobble: float
) -> list[np.ndarray]:
    """A model's scores by seed: the truth, an error that all seeds share, and one of each seed that moves its AUC."""
    shared = random.normal(0, apart, len(logit))
    return [logit * np.exp(random.normal(0, wobble)) + shared + random.normal(0, 0.2, len(logit)) for _ in range(seeds)]


@pytest.mark.parametrize("metric, seeds, wobble", [("auc", 1, 0.0), ("gauc", 1, 0.0), ("auc", 3, 0.4)])
def test_equal_models_are_told_apart_in_about_one_of_twenty(metric: str, seeds: int, wobble: float) -> None:
    random = np.random.default_rng(11)
    told_apart = 0
    tries = 150
    for number in range(tries):
        rows, logit = _rows(random)
        first, second = (_models(random, logit, seeds, 1.0, wobble) for _ in range(2))
        actual = compare(getattr(rows, metric), rows.users, first, second, resamples=150, seed=number)
        told_apart += actual.verdict != "no difference"
    # 7.5 are expected of 150; by the binomial law more than 12 come once in 25 draws, and this draw is fixed. Intervals
    # of sampling alone would tell 26 of the models with seeds apart.
    assert 1 <= told_apart <= 12


def test_a_better_model_is_seen() -> None:
    random = np.random.default_rng(12)
    rows, logit = _rows(random)
    good, bad = (_models(random, logit, 3, apart, 0.0) for apart in (0.1, 3.0))
    assert compare(rows.auc, rows.users, good, bad).verdict == "better"
    assert compare(rows.gauc, rows.users, bad, good).verdict == "worse"
    informed, uninformed = [1 / (1 + np.exp(-score)) for score in good], [np.full(len(logit), 0.01)] * 3
    loss = compare(rows.log_loss, rows.users, informed, uninformed, higher_is_better=False)
    assert loss.verdict == "better" and loss.difference.value < 0


def test_seeds_and_sampling_are_kept_apart() -> None:
    """A difference of 0.1 for every user has no sampling error; over seeds of 0.0, 0.1 and 0.2 it has one by hand."""
    rows = UserRows(np.arange(30), np.zeros(30, dtype=bool))
    value = np.random.default_rng(13).normal(size=30)
    models = {"base": [value] * 3, "model": [value, value + 0.1, value + 0.2], "sure": [value + 0.1] * 3}
    statistics = {name: [rows.mean(score) for score in scores] for name, scores in models.items()}
    actual = DrawnModels.of(statistics, rows.users, resamples=50).figures("base")
    assert actual["base"].against_base is None
    model, sure = (actual[name].against_base for name in ("model", "sure"))
    assert model is not None and sure is not None
    difference = model.difference
    assert (difference.value, difference.seed_spread, difference.seeds) == (pytest.approx(0.1), pytest.approx(0.1), 3)
    assert (difference.sampling.low, difference.sampling.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert difference.both.high - 0.1 == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)  # Student's t, 2 degrees
    assert (model.verdict, sure.verdict) == ("no difference", "better")


def test_both_errors_add_as_squares() -> None:
    rows = UserRows(np.arange(30), np.zeros(30, dtype=bool))
    noise = np.random.default_rng(14).normal(size=30)
    actual = compare(rows.mean, rows.users, [noise + 0.1, noise - 0.1], [np.zeros(30)] * 2, resamples=400).difference
    training = 12.7062 * np.std([0.1, -0.1], ddof=1) / 2**0.5
    assert actual.both.high - actual.value == pytest.approx(
        math.hypot(actual.sampling.high - actual.value, training), 1e-4
    )
    assert actual.value - actual.both.low == pytest.approx(
        math.hypot(actual.value - actual.sampling.low, training), 1e-4
    )


def test_one_seed_says_nothing_of_training() -> None:
    random = np.random.default_rng(15)
    rows, logit = _rows(random)
    actual = compare(rows.auc, rows.users, [logit], [-logit])
    assert math.isnan(actual.difference.seed_spread)
    assert actual.difference.both == actual.difference.sampling
    assert actual.verdict == "better"


def test_a_model_against_itself() -> None:
    rows, logit = _rows(np.random.default_rng(16))
    actual = compare(rows.gauc, rows.users, [logit], [logit.copy()])
    assert (actual.difference.value, actual.verdict) == (0.0, "no difference")


def test_no_verdict_without_a_value_or_with_a_handful_of_users() -> None:
    score = np.linspace(0, 1, 40)
    one_class = UserRows(np.arange(40), np.ones(40, dtype=bool))
    assert compare(one_class.auc, 40, [score], [-score]).verdict == "undefined"
    few = UserRows(np.arange(40) % 4, np.arange(40) % 3 == 0)
    actual = compare(few.auc, few.users, [score], [-score])
    assert actual.verdict == "undefined" and math.isfinite(actual.difference.value)
    empty = UserRows(np.array([]), np.array([]))
    assert compare(empty.gauc, 0, [np.array([])], [np.array([])]).verdict == "undefined"


def test_relative_improvement_has_an_interval_too() -> None:
    rows, logit = _rows(np.random.default_rng(19))
    good, base = (logit + np.random.default_rng(20).normal(0, apart, len(logit)) for apart in (0.3, 1.5))
    actual = compare(rows.auc, rows.users, [good], [base], contrast=relative_improvements)
    expected = relative_improvement(auc(rows.clicked, good), auc(rows.clicked, base))
    assert actual.difference.value == pytest.approx(expected)
    assert 0 < actual.difference.sampling.low < expected < actual.difference.sampling.high
    assert actual.verdict == "better"
    assert compare(rows.auc, rows.users, [good], [-logit], contrast=relative_improvements).verdict == "undefined"


def test_models_share_their_resamples() -> None:
    """A comparison is the same whichever other models stand in the table; GAUC by request takes its own groups."""
    random = np.random.default_rng(17)
    rows, logit = _rows(random)
    by_request = partial(rows.gauc, group=np.arange(USERS * EACH) // 3)
    models = {name: _models(random, logit, 2, 1.0, 0.1) for name in ("a", "b", "c")}
    statistics = {name: [by_request(score) for score in scores] for name, scores in models.items()}
    table = DrawnModels.of(statistics, rows.users, resamples=60).figures("a")
    assert table["b"].against_base == compare(by_request, rows.users, models["b"], models["a"], resamples=60)


def test_unequal_models_are_refused() -> None:
    rows, logit = _rows(np.random.default_rng(18))
    with pytest.raises(ValueError, match="model 1, base 2"):
        compare(rows.auc, rows.users, [logit], [logit, logit])
    with pytest.raises(ValueError, match="model 0, base 0"):
        compare(rows.auc, rows.users, [], [])
    with pytest.raises(ValueError, match="No scores of the base model 'c'; models are a"):
        DrawnModels.of({"a": [rows.auc(logit)]}, rows.users, resamples=1).figures("c")
    with pytest.raises(ValueError, match="479 scores for 480 rows"):
        compare(rows.auc, rows.users, [logit[1:]], [logit])

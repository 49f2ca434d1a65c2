"""The teacher's quality: hand-computed figures of a few pairs, and sklearn's or a loop's of many."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix, f1_score, log_loss

from prectr.labelling.label_quality import calibrate_and_judge, flip_rate, label_quality, largest_disagreements
from prectr.metrics.level_calibration import Calibration

SURE = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1], [0.1, 0.1, 0.1, 0.7]])
"""Sure of each level; expected levels 0.6, 1.2, 1.8, 2.4."""
SAME = Calibration()


def test_four_pairs_by_hand():
    found = label_quality(SURE[[0, 1, 3, 3]], SAME, np.array([0, 1, 3, 2]), ["a", "a", "b", "b"])
    assert (found["pairs"], found["queries"], found["grades"]) == (4, 2, [1, 1, 1, 1])
    raw = found["raw"]
    assert raw["accuracy"] == 0.75
    assert raw["macro_f1"] == round((1 + 1 + 0 + 2 / 3) / 4, 4)
    assert raw["confusion"] == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]]
    assert raw["nll"] == round(float(-(3 * np.log(0.7) + np.log(0.1)) / 4), 4)
    # All confidences are 0.7 and share one bin: three of four are right.
    assert raw["ece"] == 0.05
    assert [(one["confidence"], one["accuracy"], one["pairs"]) for one in raw["reliability"]] == [(0.7, 0.75, 4)]
    # Rounded expected levels are 1, 1, 2, 2 against 0, 1, 3, 2: 1 - mean square 0.5 / (1.25 + 0.25).
    assert raw["kappa"] == round(1 - 0.5 / 1.5, 4)
    # Differences 0.6, 0.2 of one query and -0.6, 0.4 of the other; mean 0.15; sums about it 0.5 and -0.5.
    assert raw["mean_expected_minus_grade"] == 0.15
    assert raw["standard_error"] == 0.25 and raw["verdict"] == "neither"
    assert (raw["share_above"], raw["share_below"]) == (0.25, 0.0)
    # The calibration that changes nothing changes nothing; equal confidences stay in one bin for all its rounding.
    assert found["calibrated"] == raw


@pytest.mark.parametrize(("grade", "verdict"), [(0, "too lenient"), (3, "too strict")])
def test_a_leaning_teacher_is_named(grade, verdict):
    generator = np.random.default_rng(0)
    found = label_quality(
        generator.dirichlet(np.ones(4), 60), SAME, np.full(60, grade), [f"q{n % 20}" for n in range(60)]
    )
    assert found["raw"]["verdict"] == verdict


def test_pairs_of_one_query_count_once():
    """A hundred copies of a query's pair say no more of the leaning than one."""
    levels, grades, queries = SURE[[2, 1, 3, 0]], np.array([1, 1, 3, 0]), np.array(["a", "b", "c", "d"])
    once, often = (
        label_quality(np.repeat(levels, times, 0), SAME, np.repeat(grades, times), np.repeat(queries, times).tolist())
        for times in (1, 100)
    )
    assert once["raw"]["standard_error"] == often["raw"]["standard_error"]
    alone = label_quality(levels, SAME, grades, ["a"] * 4)["raw"]
    assert alone["standard_error"] is None and alone["verdict"] is None


def test_calibration_is_applied():
    sharper = Calibration(2.0)
    found = label_quality(SURE, sharper, np.arange(4), list("abcd"))
    assert found["calibrated"] == label_quality(sharper.apply(SURE), SAME, np.arange(4), list("abcd"))["raw"]
    assert found["calibrated"]["nll"] < found["raw"]["nll"]


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 120))
def test_figures_equal_the_oracles(seed, rows):
    generator = np.random.default_rng(seed)
    levels, grades = generator.dirichlet(np.ones(4), rows), generator.integers(0, 4, rows)
    queries = generator.integers(0, 9, rows).astype(str)
    raw = label_quality(levels, SAME, grades, queries.tolist())["raw"]
    predicted, rounded = levels.argmax(axis=1), np.rint(levels @ np.arange(4)).astype(int)
    assert raw["accuracy"] == pytest.approx(accuracy_score(grades, predicted), abs=1e-4)
    assert raw["macro_f1"] == pytest.approx(
        f1_score(grades, predicted, labels=range(4), average="macro", zero_division=0), abs=1e-4
    )
    assert raw["confusion"] == confusion_matrix(grades, predicted, labels=range(4)).tolist()
    assert raw["nll"] == pytest.approx(log_loss(grades, levels, labels=range(4)), abs=1e-4)
    if len(set(grades) | set(rounded)) > 1:
        assert raw["kappa"] == pytest.approx(cohen_kappa_score(grades, rounded, weights="quadratic"), abs=1e-4)
    # Bins by counting, one pair at a time.
    confidence, bins = levels.max(axis=1), {}
    for row in range(rows):
        number = 10 * sum(other < confidence[row] for other in confidence) // rows
        bins.setdefault(number, []).append((confidence[row], predicted[row] == grades[row]))
    gaps = [len(bin_) * abs(np.mean([c for c, _ in bin_]) - np.mean([r for _, r in bin_])) for bin_ in bins.values()]
    assert raw["ece"] == pytest.approx(sum(gaps) / rows, abs=1e-3)
    assert sum(one["pairs"] for one in raw["reliability"]) == rows
    if len(set(queries)) > 1:
        difference = levels @ np.arange(4) - grades
        sums = [sum(difference[queries == query] - difference.mean()) for query in set(queries)]
        error = np.sqrt(len(sums) / (len(sums) - 1) * np.square(sums).sum()) / rows
        assert raw["standard_error"] == pytest.approx(error, abs=1e-4)


def test_flips_by_hand():
    second = SURE.copy()
    second[0] = [0.1, 0.7, 0.1, 0.1]
    found = flip_rate(SURE, second)
    assert (found["pairs"], found["flipped"]) == (4, 0.25)
    # Wilson: (k + z^2/2 -+ z sqrt(k (n-k) / n + z^2/4)) / (n + z^2) with k = 1, n = 4, z = 1.959964.
    assert (found["flipped_low"], found["flipped_high"]) == (0.0456, 0.6994)
    assert (found["mean_difference"], found["largest_difference"]) == (0.15, 0.6)
    assert found["mean_total_variation"] == 0.15
    assert flip_rate(SURE, SURE)["flipped"] == 0 < flip_rate(SURE, SURE)["flipped_high"]
    assert flip_rate(np.empty((0, 4)), np.empty((0, 4))) == {"pairs": 0}


def _gold(rows: int) -> pl.DataFrame:
    """A teacher that is far too sure of itself."""
    generator = np.random.default_rng(1)
    truth = generator.dirichlet(np.ones(4), rows)
    grades = (truth.cumsum(axis=1) < generator.random((rows, 1))).sum(axis=1)
    sharp = truth**4 / (truth**4).sum(axis=1, keepdims=True)
    return pl.DataFrame(
        {
            "query": [f"q{row % 50}" for row in range(rows)],
            "item_id": [f"i{row}" for row in range(rows)],
            "title": [f"title {row}" for row in range(rows)],
            "split": ["validation", "held-back", "train"] * (rows // 3),
            "grade": grades.astype(np.int8),
            **{f"level_{level}": sharp[:, level].astype(np.float32) for level in range(4)},
        }
    )


def test_fitted_on_validation_and_measured_on_held_back_pairs():
    gold = _gold(3000)
    calibration, facts = calibrate_and_judge(gold, calibrate=True)
    assert 0.15 < calibration.scale < 0.4
    metrics = facts["metrics"]
    assert metrics["validation_pairs"] == metrics["held_back_pairs"] == 1000
    assert metrics["held_back_nll_calibrated"] < metrics["held_back_nll_raw"] - 0.3
    held_back = facts["quality"]["held_back"]
    assert held_back["calibrated"]["ece"] < 0.06 < held_back["raw"]["ece"]
    assert held_back["calibrated"]["nll"] == metrics["held_back_nll_calibrated"]
    moved = gold.with_columns(
        grade=pl.when(pl.col("split") == "validation").then("grade").otherwise(3 - pl.col("grade"))
    )
    assert calibrate_and_judge(moved, calibrate=True)[0] == calibration


def test_without_validation_pairs_nothing_is_fitted():
    gold = _gold(300)
    assert calibrate_and_judge(gold, calibrate=False)[0] == Calibration()
    calibration, facts = calibrate_and_judge(gold.filter(pl.col("split") == "held-back"), calibrate=True)
    assert calibration == Calibration() and set(facts["quality"]) == {"held_back"}
    assert facts["metrics"]["held_back_nll_raw"] == facts["metrics"]["held_back_nll_calibrated"]
    nothing = {"metrics": {}, "quality": {}, "disagreements": []}
    assert calibrate_and_judge(gold.clear(), calibrate=True) == (Calibration(), nothing)


def test_the_largest_disagreement_comes_first():
    gold = pl.DataFrame(
        {
            "query": ["a", "b", "c"],
            "item_id": ["x", "y", "z"],
            "title": ["X", "Y", "Z"],
            "grade": [1, 3, 1],
            **{f"level_{level}": SURE[[1, 0, 3], level] for level in range(4)},
        }
    )
    rows = largest_disagreements(gold, SAME)
    assert [(row["title"], row["grade"], row["expected"]) for row in rows] == [
        ("Y", 3, 0.6),
        ("Z", 1, 2.4),
        ("X", 1, 1.2),
    ]
    assert rows[0]["levels"] == [0.7, 0.1, 0.1, 0.1]

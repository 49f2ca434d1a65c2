"""Log loss, normalised entropy, ECE and predicted / actual by hand and against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import log_loss as sklearn_log_loss

from prectr.metrics import calibration_bins, calibration_error, log_loss, normalised_entropy, predicted_over_actual

CLICKED, PROBABILITY = np.array([True, False, False, False]), np.array([0.5, 0.25, 0.2, 0.05])
NOTHING = np.array([])


def test_log_loss_and_predicted_over_actual() -> None:
    assert log_loss(CLICKED, PROBABILITY) == pytest.approx(sklearn_log_loss(CLICKED, PROBABILITY))
    assert math.isfinite(log_loss(np.array([True]), np.array([0.0])))
    assert predicted_over_actual(CLICKED, PROBABILITY) == pytest.approx(1.0)
    assert math.isnan(predicted_over_actual(np.zeros(4, dtype=bool), PROBABILITY))


def test_normalised_entropy_is_one_for_the_click_rate() -> None:
    assert normalised_entropy(CLICKED, np.full(4, 0.25)) == pytest.approx(1.0)
    rate_loss = sklearn_log_loss(CLICKED, np.full(4, 0.25))
    assert normalised_entropy(CLICKED, PROBABILITY) == pytest.approx(log_loss(CLICKED, PROBABILITY) / rate_loss)
    assert math.isnan(normalised_entropy(np.ones(4, dtype=bool), PROBABILITY))


def test_calibration_error_equals_a_loop_over_equal_bins() -> None:
    random = np.random.default_rng(5)
    probability = random.permutation(np.linspace(0.01, 0.5, 60))
    clicked = random.random(60) < probability
    parts = np.array_split(np.argsort(probability), 5)
    gaps = [abs(probability[part].mean() - clicked[part].mean()) for part in parts]
    assert calibration_error(clicked, probability, bins=5) == pytest.approx(np.mean(gaps))
    actual = calibration_bins(clicked, probability, bins=5)
    np.testing.assert_array_equal(actual.rows, [12] * 5)
    np.testing.assert_allclose(actual.predicted, [probability[part].mean() for part in parts])


def test_rows_of_one_probability_share_a_bin() -> None:
    """So the click rate itself, said of all rows, is calibrated in any order of the rows."""
    clicked = np.repeat([True, False], [10, 30])
    assert calibration_error(clicked, np.full(40, 0.25)) == pytest.approx(0.0)
    assert calibration_bins(clicked, np.full(40, 0.25)).rows.tolist() == [40]


def test_nothing_has_no_calibration() -> None:
    for figure in (log_loss, normalised_entropy, calibration_error, predicted_over_actual):
        assert math.isnan(figure(NOTHING, NOTHING))


def test_what_is_no_probability_is_refused() -> None:
    for figure in (log_loss, normalised_entropy, calibration_error, predicted_over_actual):
        with pytest.raises(ValueError, match="2 of 4 click probabilities"):
            figure(CLICKED, np.array([0.5, 1.5, -2.0, 0.1]))
        with pytest.raises(ValueError, match="1 of 4 scores are NaN"):
            figure(CLICKED, np.array([0.5, np.nan, 0.2, 0.1]))

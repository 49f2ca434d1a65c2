import numpy as np

from prectr.metrics.level_calibration import Calibration, fit_calibration, negative_log_likelihood


def test_calibration_by_hand():
    scaled = Calibration(2.0, (0.0, 0.0, 0.0, np.log(3.0))).apply(np.array([[0.1, 0.2, 0.3, 0.4]]))
    weights = np.array([0.01, 0.04, 0.09, 0.48])
    assert np.allclose(scaled, weights / weights.sum())


def test_an_overconfident_teacher_is_cooled():
    generator = np.random.default_rng(0)
    truth = generator.dirichlet(np.ones(4), 4000)
    grades = (truth.cumsum(axis=1) < generator.random((4000, 1))).sum(axis=1)
    sharp = truth**3 / (truth**3).sum(axis=1, keepdims=True)
    fitted = fit_calibration(sharp, grades)
    assert abs(fitted.scale - 1 / 3) < 0.03
    assert negative_log_likelihood(fitted.apply(sharp), grades) < negative_log_likelihood(sharp, grades) - 0.1


def test_without_gold_nothing_changes():
    probabilities = np.array([[0.1, 0.2, 0.3, 0.4]])
    fitted = fit_calibration(np.empty((0, 4)), np.empty(0, int))
    assert np.allclose(fitted.apply(probabilities), probabilities)

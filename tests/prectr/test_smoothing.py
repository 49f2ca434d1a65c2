"""The back-off of click rates: its strength is recovered from clicks that were drawn with a known one."""

import numpy as np
import pytest

from prectr.preferences.smoothing import LEAST_SMOOTHING, MOST_SMOOTHING, fit_smoothing
from prectr.preferences.sums import LEVEL_WIDTH, LevelSums
from prectr.preferences.tolerance import GRID_SIZE

RATES = np.array([0.01, 0.03, 0.08, 0.15])


def _drawn(shape: float | None, queries: int = 1500, seed: int = 0) -> LevelSums:
    """Queries whose rates are drawn from Gamma(shape, mean = RATES), or are RATES themselves."""
    rng = np.random.default_rng(seed)
    examined = rng.exponential(150, (queries, 4))
    rate = np.tile(RATES, (queries, 1)) if shape is None else rng.gamma(shape, RATES / shape, (queries, 4))
    sums = np.zeros((queries, LEVEL_WIDTH))
    sums[:, GRID_SIZE + 4 : GRID_SIZE + 8] = examined
    sums[:, GRID_SIZE + 8 : GRID_SIZE + 12] = rng.poisson(examined * rate)
    return LevelSums.split(sums)


@pytest.mark.parametrize("shape", [0.5, 3.0, 20.0])
def test_strength_is_recovered(shape: float) -> None:
    assert fit_smoothing(_drawn(shape), np.tile(RATES, (1500, 1))) == pytest.approx(shape, rel=0.25)


def test_queries_that_do_not_differ_are_smoothed_as_much_as_may_be() -> None:
    assert fit_smoothing(_drawn(None), np.tile(RATES, (1500, 1))) > MOST_SMOOTHING / 10
    assert fit_smoothing(_drawn(0.02), np.tile(RATES, (1500, 1))) == pytest.approx(LEAST_SMOOTHING, rel=0.1)

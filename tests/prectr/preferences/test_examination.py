"""The examination curve: recovered from clicks of a known one, and named for what it was estimated from."""

import numpy as np
import polars as pl
import pytest

from prectr.contracts.schema import EXPLORE_POLICY
from prectr.preferences.config import PreferencesConfig
from prectr.preferences.examination import Examination, examination_counts, fit_examination
from prectr.preferences.shown import explored


def _shown(exponent: float, requests: int, policy: str, sort_by_level: bool, seed: int = 1) -> pl.DataFrame:
    """Requests of ten rows; clicks by level and position^-exponent; `sort_by_level` puts better items higher."""
    rng = np.random.default_rng(seed)
    level = rng.integers(0, 4, (requests, 10))
    if sort_by_level:
        level = -np.sort(-level, axis=1)
    position = np.tile(np.arange(1, 11), (requests, 1))
    probability = np.array([0.02, 0.08, 0.2, 0.4])[level] * position**-exponent
    return pl.DataFrame(
        {
            "level": level.ravel().astype(np.int32),
            "position": position.ravel().astype(np.int32),
            "clicked": (rng.random(level.shape) < probability).ravel(),
            "policy": policy,
        }
    )


def _fit(shown: pl.DataFrame, config: PreferencesConfig) -> Examination:
    """Counted in two parts, as two tasks would."""
    parts = (shown[::2], shown[1::2])
    counts = [
        examination_counts(*(part[name].to_numpy() for name in ("level", "position", "clicked")), explored(part))
        for part in parts
    ]
    return fit_examination(pl.concat(counts), config)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5])
def test_exponent_is_recovered_from_the_randomised_slice(exponent: float) -> None:
    found = _fit(_shown(exponent, 3000, EXPLORE_POLICY, sort_by_level=False), PreferencesConfig())
    assert found.exponent == pytest.approx(exponent, abs=0.1)
    assert found.source == "randomised slice"


def test_levels_absorb_that_better_items_stand_higher() -> None:
    logged = _shown(1.0, 3000, "production", sort_by_level=True)
    found = _fit(logged, PreferencesConfig(examination="logged"))
    assert found.exponent == pytest.approx(1.0, abs=0.1)
    by_position = logged.group_by("position").agg(pl.col("clicked").mean()).sort("position")
    naive = np.polyfit(np.log(by_position["position"]), np.log(by_position["clicked"]), 1)[0]
    assert -naive > 1.3, "without levels the policy would be taken for examination"


def test_only_the_randomised_slice_counts_where_there_is_one() -> None:
    logged, randomised = _shown(0.3, 3000, "production", True), _shown(1.2, 3000, EXPLORE_POLICY, False)
    found = _fit(pl.concat([logged, randomised]), PreferencesConfig())
    assert found.exponent == pytest.approx(1.2, abs=0.1)
    assert found.clicks == randomised["clicked"].sum()


@pytest.mark.parametrize("slice_requests", [0, 5])
def test_too_small_a_slice_falls_back_and_says_so(slice_requests: int) -> None:
    logged = _shown(1.0, 2000, "production", True)
    shown = pl.concat([logged, _shown(1.0, slice_requests, EXPLORE_POLICY, False)])
    found = _fit(shown, PreferencesConfig())
    assert found.source == "logged rows, level-stratified (no sufficient randomised slice)"
    assert found.clicks == shown["clicked"].sum()
    without_policy = _fit(logged.with_columns(policy=pl.lit(None, pl.String)), PreferencesConfig())
    assert without_policy.source == found.source


def test_fixed_by_configuration() -> None:
    config = PreferencesConfig(examination="fixed", examination_exponent=0.7)
    found = _fit(_shown(1.0, 10, "production", True), config)
    assert (found.exponent, found.source) == (0.7, "fixed by configuration")


@pytest.mark.parametrize("examination", ["auto", "randomised", "logged"])
def test_no_clicks_at_all_is_said(examination: str) -> None:
    shown = _shown(1.0, 10, "production", True).with_columns(clicked=False)
    found = _fit(shown, PreferencesConfig(examination=examination))  # type: ignore[arg-type]
    assert (found.exponent, found.source) == (1.0, "fixed: no clicks to estimate from")

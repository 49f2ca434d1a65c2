"""The examination curve: the fit recovers a known exponent and names the rows that it was estimated from."""

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
    """Fit on the counts of two parts, as two tasks would make them."""
    parts = (shown[::2], shown[1::2])
    counts = [
        examination_counts(*(part[name].to_numpy() for name in ("level", "position", "clicked")), explored(part))
        for part in parts
    ]
    return fit_examination(pl.concat(counts), config)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5])
def test_exponent_is_recovered_from_the_randomised_slice(exponent: float) -> None:
    fitted = _fit(_shown(exponent, 3000, EXPLORE_POLICY, sort_by_level=False), PreferencesConfig())
    assert fitted.exponent == pytest.approx(exponent, abs=0.1)
    assert fitted.source == "randomised slice"


def test_rates_by_level_account_for_better_items_standing_higher() -> None:
    logged = _shown(1.0, 3000, "production", sort_by_level=True)
    fitted = _fit(logged, PreferencesConfig(examination="logged"))
    assert fitted.exponent == pytest.approx(1.0, abs=0.1)
    by_position = logged.group_by("position").agg(pl.col("clicked").mean()).sort("position")
    naive = np.polyfit(np.log(by_position["position"]), np.log(by_position["clicked"]), 1)[0]
    assert -naive > 1.3, "without levels the fit would mistake the policy for examination"


def test_only_the_randomised_slice_counts_where_there_is_one() -> None:
    logged, randomised = _shown(0.3, 3000, "production", True), _shown(1.2, 3000, EXPLORE_POLICY, False)
    fitted = _fit(pl.concat([logged, randomised]), PreferencesConfig())
    assert fitted.exponent == pytest.approx(1.2, abs=0.1)
    assert fitted.clicks == randomised["clicked"].sum()


@pytest.mark.parametrize("slice_requests", [0, 5])
def test_a_slice_that_is_too_small_falls_back_to_the_logged_rows(slice_requests: int) -> None:
    logged = _shown(1.0, 2000, "production", True)
    shown = pl.concat([logged, _shown(1.0, slice_requests, EXPLORE_POLICY, False)])
    fitted = _fit(shown, PreferencesConfig())
    assert fitted.source == "logged rows, level-stratified (no sufficient randomised slice)"
    assert fitted.clicks == shown["clicked"].sum()
    without_policy = _fit(logged.with_columns(policy=pl.lit(None, pl.String)), PreferencesConfig())
    assert without_policy.source == fitted.source


def test_fixed_by_configuration() -> None:
    config = PreferencesConfig(examination="fixed", examination_exponent=0.7)
    fitted = _fit(_shown(1.0, 10, "production", True), config)
    assert (fitted.exponent, fitted.source) == (0.7, "fixed by configuration")


@pytest.mark.parametrize("examination", ["auto", "randomised", "logged"])
def test_without_clicks_the_exponent_is_the_configured_one(examination: str) -> None:
    shown = _shown(1.0, 10, "production", True).with_columns(clicked=False)
    fitted = _fit(shown, PreferencesConfig(examination=examination))  # type: ignore[arg-type]
    assert (fitted.exponent, fitted.source) == (1.0, "fixed: no clicks to estimate from")

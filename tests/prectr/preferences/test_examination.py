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
            "query": "one",
            "item_id": [f"{policy} {number}" for number in range(level.size)],  # each shown once
            "rows": 1,
        }
    )


def _fit(shown: pl.DataFrame, config: PreferencesConfig) -> Examination:
    """Fit on the counts of two parts, as two tasks would make them."""
    parts = (shown[::2], shown[1::2])
    counts = [
        examination_counts(*(part[name].to_numpy() for name in ("level", "position", "clicked")), explored(part))
        for part in parts
    ]
    return fit_examination(pl.concat(counts), shown, config)


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


def test_pairs_account_for_what_the_policy_knows_beyond_the_level() -> None:
    """Items of one level differ in appeal, and the policy puts the appealing ones higher, with some noise."""
    rng = np.random.default_rng(3)
    appeal = rng.gamma(1.0, 0.2, (60, 30))
    rows = []
    for request in range(4000):
        query = request % len(appeal)
        order = np.argsort(-(appeal[query] + rng.normal(0, 0.15, 30)))[:10]
        clicked = rng.random(10) < (appeal[query, order] * np.arange(1.0, 11.0) ** -0.7).clip(max=1)
        rows += [(f"q{query}", f"i{item}", place + 1, bool(clicked[place])) for place, item in enumerate(order)]
    shown = pl.DataFrame(rows, schema=["query", "item_id", "position", "clicked"], orient="row").with_columns(
        level=pl.lit(2, pl.Int32), policy=pl.lit("production"), rows=1
    )
    fitted = _fit(shown, PreferencesConfig())
    assert fitted.exponent == pytest.approx(0.7, abs=0.08)
    assert fitted.source == "logged rows, pair by pair (no sufficient randomised slice)"
    by_level = _fit(shown.with_columns(item_id=pl.int_range(pl.len()).cast(pl.String)), PreferencesConfig())
    assert by_level.exponent > 1.0 and "level-stratified" in by_level.source


def test_pairs_that_hardly_move_do_not_tell_the_exponent() -> None:
    """Their clicks are many, but positions 4 and 5 are looked at almost alike."""
    between = pl.col("position").is_in([4, 5])
    item = pl.when(between).then(pl.col("level").cast(pl.String)).otherwise("item_id")
    logged = _shown(1.0, 4000, "production", True).with_columns(item_id=item)
    assert logged.filter(between)["clicked"].sum() > PreferencesConfig().min_randomised_clicks
    fitted = _fit(logged, PreferencesConfig())
    assert "level-stratified" in fitted.source and fitted.exponent == pytest.approx(1.0, abs=0.1)


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

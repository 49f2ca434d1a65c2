"""Calibration on what coarse ranking hands over."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from jobs.distill import build_marked_encoder
from prectr.contracts.model_config import EncoderConfig
from prectr.data.tables import Tables
from prectr.metrics.level_calibration import fit_calibration, mixture_weights
from prectr.relevance.calibration import calibrate_heads, candidates_like_judged, share_of_judged, unexposed_sample
from prectr.relevance.match_features import MATCH_FEATURES, MatchTable
from prectr.relevance.tokenisation import PairTokens
from tests.manifests import write_manifest


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_the_share_of_candidates_like_judged_pairs_is_found(share: float) -> None:
    rng = np.random.default_rng(5)

    def draw(count: int, mean: float) -> np.ndarray:
        return rng.normal(mean, 1.0, (count, 3))

    like_judged = rng.random(6000) < share
    candidates = np.where(like_judged[:, None], draw(6000, 1.0), draw(6000, 0.0))
    assert share_of_judged(draw(2000, 1.0), draw(700, 0.0), candidates) == pytest.approx(share, abs=0.04)


def test_levels_fitted_on_the_mixture_have_the_mean_of_the_candidates() -> None:
    """The feature is weak. A fit on judged pairs alone would give the candidates levels that are far too high."""
    rng = np.random.default_rng(7)
    share = 0.2

    def pairs(judged: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        grades = np.where(judged, rng.choice(4, len(judged), p=[0.2, 0.1, 0.2, 0.5]), 0)
        seen = grades + rng.normal(0, 2.0, len(judged))
        logits = np.stack([-0.2 * (seen - level) ** 2 for level in range(4)], axis=1)
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), grades

    kinds = np.repeat([True, False], [2000, 1000])
    probabilities, grades = pairs(kinds)
    candidates, true = pairs(rng.random(5000) < share)
    fitted = fit_calibration(probabilities, grades, mixture_weights(2000, 1000, share))
    of_judged = fit_calibration(probabilities[kinds], grades[kinds])
    mean = true.mean() / 3
    assert abs((fitted.apply(candidates) @ np.arange(4)).mean() / 3 - mean) < 0.05
    assert abs((of_judged.apply(candidates) @ np.arange(4)).mean() / 3 - mean) > 0.1


def test_weights_of_the_mixture() -> None:
    weights = mixture_weights(3, 2, 0.2)
    np.testing.assert_allclose(weights, [1 / 3] * 3 + [2.0] * 2)
    np.testing.assert_array_equal(mixture_weights(3, 0, 0.2), np.ones(3))


def test_a_calibration_is_folded_into_both_heads() -> None:
    torch.manual_seed(0)
    encoder = build_marked_encoder(EncoderConfig(layers=1, width=8, heads=2, feed_forward=16, match_width=4), 40)
    rng = np.random.default_rng(0)
    count = 120
    tokens = PairTokens(
        rng.integers(5, 40, 5 * count, np.int32),
        np.arange(count + 1) * 5,
        np.full(count, 3, np.int16),
        rng.random((count, len(MATCH_FEATURES))).astype(np.float32),
    )
    rows, grades, made = np.arange(count), rng.integers(0, 4, count), np.arange(count) % 3 == 0
    grades[made] = 0
    inputs = {name: torch.from_numpy(part) for name, part in tokens.padded(rows).items()}
    with torch.no_grad():
        before = encoder.eval().both_logits(**inputs)
    facts = calibrate_heads(encoder, tokens, rows, grades, made, 0.4, marks=True)
    with torch.no_grad():
        after = encoder.both_logits(**inputs)
    for name, old, new in zip(("head", "plain_head"), before, after, strict=True):
        assert facts[name]["nll_after"] < facts[name]["nll_before"]
        moved = facts[name]["scale"] * old + torch.tensor(facts[name]["bias"])
        if name == "head":
            torch.testing.assert_close(new, moved, atol=1e-3, rtol=1e-3)
        assert not torch.allclose(new, old, atol=1e-2)


def test_candidates_come_with_their_normal_queries_and_none_is_no_error(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": ["a", "b"], "title": ["Red shoe", "Lamp"], "category": None, "brand": None}).write_parquet(
        tmp_path / "items.parquet"
    )
    (tmp_path / "impressions" / "date=2026-01-01").mkdir(parents=True)
    rows = pl.DataFrame({"query": ["Red  SHOE"] * 3, "item_id": ["a", "b", "gone"]})
    rows.write_parquet(tmp_path / "impressions" / "date=2026-01-01" / "part-0000.parquet")
    write_manifest(tmp_path, "simulate")
    tables = Tables(tmp_path)
    assert unexposed_sample(tables, 0).is_empty()
    features = np.zeros((4, len(MATCH_FEATURES)))
    assert candidates_like_judged(tables, features, features, MatchTable.fit(tables.items()), 0) == (None, 0)
    day = tmp_path / "candidates" / "date=2026-01-01"
    day.mkdir(parents=True)
    rows.write_parquet(day / "part-0000.parquet")
    assert unexposed_sample(Tables(tmp_path), 0).rows() == [("red shoe", "Red shoe"), ("red shoe", "Lamp")]

"""What makes the partial aggregates of a day worth keeping: where its relevance comes from, not how it was rounded."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest

from prectr.preferences.days import calibration_of, relevance_hash, same_calibration
from prectr.preferences.pair_index import PairIndex, origins
from prectr.preferences.shown import ShownReader

MANIFEST = {
    "config": {"int8": False, "judgment_confidence": 0.97},
    "inputs": {"encoder": "distill:a:monday"},
    "labels": {"context": "c", "calibration": {"scale": 0.5, "bias": [0.0, 0.1, 0.2, 0.3]}},
}
PLACES = np.array([0, 1, 2, 3, -1])
"""All pairs, and one that was not scored."""


def _hash(
    levels: list[list[float]] | None = None,
    sources: tuple[str, ...] = ("encoder", "teacher", "judgment", "encoder"),
    items: Mapping[str, Any] | None = None,
    manifest: Mapping[str, Any] = MANIFEST,
) -> int:
    given = np.array(levels or _levels(), np.float32)
    pairs = pl.DataFrame(
        {
            "pair": np.arange(4, dtype=np.int32),
            "query": ["a", "a", "b", "b"],
            "item_id": ["x", "y", "x", "z"],
            "source": sources,
            "expected": given @ np.arange(4, dtype=np.float32) / 3,
            **{f"level_{level}": given[:, level] for level in range(4)},
        }
    )
    catalogue = {"item_id": ["x", "y", "z"], "title": ["ex", "why", "zed"], "category": ["p", "p", "q"]}
    blank = {"brand": pl.Series([None] * 3, dtype=pl.String), "price": pl.Series([None] * 3, dtype=pl.Float64)}
    frame = pl.DataFrame(catalogue | dict(items or {})).with_columns(**blank)
    return relevance_hash(ShownReader.of(frame, PairIndex.of(pairs, origins(manifest))), PLACES)


def _levels(rounding: float = 0.0) -> list[list[float]]:
    """Level probabilities; the expected relevance of two pairs lies `rounding` beside a border of the lattice."""
    step = 0.5 / 200 * 3 + 3 * rounding
    return [[1 - step, step, 0, 0], [0, 0, 1 - step, step], [0.01, 0.97, 0.01, 0.01], [0.1, 0.2, 0.3, 0.4]]


def test_rounding_changes_nothing() -> None:
    assert _hash(_levels(-1e-6)) == _hash(_levels(1e-6)) == _hash()


@pytest.mark.parametrize(
    "change",
    [
        {"sources": ("teacher", "teacher", "judgment", "encoder")},
        {"sources": ("encoder", "judgment", "judgment", "encoder")},
        {"levels": [*_levels()[:1], [0.7, 0.1, 0.1, 0.1], *_levels()[2:]]},
        {"items": {"title": ["ex", "why", "said"]}},
        {"items": {"category": ["p", "r", "q"]}},
        {"manifest": MANIFEST | {"inputs": {"encoder": "distill:a:tuesday"}}},
        {"manifest": MANIFEST | {"config": {"int8": True, "judgment_confidence": 0.97}}},
        {"manifest": MANIFEST | {"config": {"int8": False, "judgment_confidence": 0.9}}},
        {"manifest": MANIFEST | {"labels": {"context": "d", "calibration": None}}},
    ],
    ids=["labelled", "judged", "level", "title", "category", "encoder", "int8", "confidence", "teacher"],
)
def test_another_origin_is_another_relevance(change: dict[str, Any]) -> None:
    assert _hash(**change) != _hash()


def test_a_title_that_no_encoder_read_does_not_count() -> None:
    """Item y is in one pair, which a teacher labelled."""
    assert _hash(items={"title": ["ex", "what", "zed"]}) == _hash()


def test_calibrations_are_compared_with_a_tolerance() -> None:
    fitted = calibration_of(MANIFEST)
    assert fitted == (0.5, 0.0, 0.1, 0.2, 0.3) and calibration_of({}) == ()
    assert same_calibration([value + 1e-4 for value in fitted], fitted)
    assert not same_calibration([value + 1e-2 for value in fitted], fitted)
    assert same_calibration((), ()) and not same_calibration((), fitted)

"""Feature specifications of two processors are one; those of other samples are not."""

import json
from pathlib import Path
from typing import Any

import pytest

from prectr.features.spec import same_specification

SPEC = {
    "items": {"brand": {"nokia": 1, "ikea": 2}},
    "price_edges": [1.5, 2.5],
    "scalers": {"numeric": {"names": ["a"], "mean": [1e-9], "deviation": [0.25]}},
    "positions": 10,
}


def _files(folder: Path, other: dict[str, Any]) -> tuple[Path, Path]:
    files = folder / "one.json", folder / "other.json"
    for file, content in zip(files, (SPEC, other), strict=True):
        file.write_text(json.dumps(content), encoding="utf-8")
    return files


def test_last_digits_do_not_count(tmp_path: Path) -> None:
    scaler = {"names": ["a"], "mean": [-1e-9], "deviation": [0.25 * (1 + 1e-7)]}
    assert same_specification(*_files(tmp_path, SPEC | {"scalers": {"numeric": scaler}}))


@pytest.mark.parametrize(
    "change",
    [
        {"price_edges": [1.5, 2.5 * (1 + 1e-2)]},
        {"price_edges": [1.5]},
        {"items": {"brand": {"nokia": 2, "ikea": 1}}},
        {"items": {"brand": {"nokia": 1}}},
        {"scalers": {"numeric": {"names": ["b"], "mean": [1e-9], "deviation": [0.25]}}},
        {"positions": 11},
    ],
)
def test_everything_else_counts(tmp_path: Path, change: dict[str, Any]) -> None:
    assert not same_specification(*_files(tmp_path, SPEC | change))

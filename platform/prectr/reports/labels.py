"""Figures of the label page, read from the manifest, the labels and the errors of a `label` artifact."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.artifacts import require_artifact
from prectr.labelling.bands import BANDS
from prectr.labelling.selection import ORIGINS, STRATA

GROUPS = {"origin": (*ORIGINS, "given"), "stratum": STRATA, "band": BANDS}
"""Columns that group the labels for the distributions, and the order of their values."""
OUTSIDE_BOUNDS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Bounds of the groups of pairs by probability outside the labels."""
SHOWN_REASONS = 10
"""Most reasons for missing labels on the page."""


def summarise(labels: Path) -> dict[str, Any]:
    """Collect the content of the page; values that the artifact does not hold are None or empty.

    Raises:
        UsageError: `labels` is not an artifact of `label`.
    """
    manifest = require_artifact(labels, "label")
    frame = pl.read_parquet(labels / "labels.parquet")
    errors = pl.read_parquet(labels / "errors.parquet", columns=["error"])
    run = manifest.get("run") or {}
    quality = manifest.get("quality") or {}
    return {
        # A simulated log that `validate` wrote again is not recognised: only its tables record that.
        "simulated": str(manifest["inputs"].get("tables", "")).startswith("simulate:"),
        "started": str(manifest["started"])[:10],
        "rows": manifest["rows"],
        "asked_whom": {
            "teacher": manifest.get("teacher"),
            "prompt": manifest.get("prompt"),
            "engines of these labels": ", ".join(
                f"{engine} ({count:,})" for engine, count in (manifest.get("engines") or {}).items()
            ),
            "decoding": manifest.get("decoding"),
            "ledger context": manifest.get("context"),
            "wall time of the stage": f"{manifest['wall_seconds']:,.1f} s",
        },
        "prompt_text": manifest.get("prompt_text"),
        "run": {name: run[name] for name in run if name not in ("flags", "versions")},
        # Versions and flags of the run that asked the teacher; of this stage if the ledger answered everything.
        "versions": run.get("versions") or manifest["versions"],
        "flags": dict(_flat(run.get("flags") or manifest["config"])),
        "calibration": manifest.get("calibration"),
        "cells": (manifest.get("selection") or {}).get("cells") or [],
        "reasons": _reasons(errors),
        "quality": quality,
        "verdict": _verdict(quality),
        "repeats": manifest.get("repeats") or {"pairs": 0},
        "disagreements": manifest.get("disagreements") or [],
        "distributions": {name: _distribution(frame, name, order) for name, order in GROUPS.items()},
        "outside": _outside(frame["outside_mass"]),
    }


def _flat(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten nested settings to `section.key`."""
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _reasons(errors: pl.DataFrame) -> list[dict[str, Any]]:
    """The most frequent reasons for missing labels. Numbers are masked, so that one fault is one reason."""
    reason = pl.col("error").str.slice(0, 300).str.replace_all(r"\d+", "N").alias("reason")
    counted = errors.group_by(reason).agg(pairs=pl.len(), example=pl.col("error").min().str.slice(0, 300))
    return counted.sort(["pairs", "reason"], descending=[True, False]).head(SHOWN_REASONS).to_dicts()


def _verdict(quality: Mapping[str, Any]) -> dict[str, Any] | None:
    """Leaning of the calibrated labels: on held-back queries, else on validation queries; None without either."""
    for split in ("held_back", "validation"):
        if split in quality:
            figures = quality[split]
            return {"split": split, "pairs": figures["pairs"], "queries": figures["queries"], **figures["calibrated"]}
    return None


def _distribution(frame: pl.DataFrame, column: str, order: tuple[str, ...]) -> list[dict[str, Any]]:
    """Mean probability of each level by the values of a column, in the given order."""
    means = frame.group_by(column).agg(pl.len().alias("pairs"), pl.col(LEVEL_COLUMNS).cast(pl.Float64).mean())
    rows = {row[column]: row for row in means.to_dicts()}
    return [
        {"name": name, "pairs": rows[name]["pairs"], "levels": [rows[name][level] for level in LEVEL_COLUMNS]}
        for name in order
        if name in rows
    ]


def _outside(mass: pl.Series) -> list[dict[str, Any]]:
    """Number of pairs by the probability that the teacher gave to tokens other than the labels."""
    bounds = (0.0, *OUTSIDE_BOUNDS, None)
    return [
        {
            "range": f"≥ {low:g}" if high is None else f"< {high:g}" if low == 0 else f"{low:g} to {high:g}",
            "pairs": int(((mass >= low) & (mass < high if high is not None else True)).sum()),
        }
        for low, high in zip(bounds, bounds[1:])
    ]

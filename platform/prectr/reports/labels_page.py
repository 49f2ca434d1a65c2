"""The page about labels, one self-contained HTML file. The page names data that the artifact lacks."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core import progress
from prectr.core.artifacts import require_artifact
from prectr.core.errors import PrectrError
from prectr.labelling.bands import BANDS
from prectr.labelling.label_quality import DEFINITIONS
from prectr.labelling.selection import ORIGINS, STRATA
from prectr.reports.drawing import ACCENT, COLOURS, INK, SOFT, svg, templates
from prectr.reports.drawing import axes as new_axes

SPLITS = {
    "held_back": "held-back queries, on which the calibration is evaluated",
    "validation": "validation queries, on which the calibration was fitted",
}


def write_label_page(labels: Path, html: Path) -> None:
    """Write the page about a `label` artifact.

    Args:
        labels: the artifact.
        html: the file to write.

    Raises:
        UsageError: `labels` is not such an artifact.
        PrectrError: the page cannot be written.
    """
    page = render(summarise(labels))
    try:
        html.write_text(page, encoding="utf-8")
    except OSError as error:
        raise PrectrError(f"{html}: the page cannot be written ({error.strerror}).") from None
    progress.say(f"  page written: {html}")


def render(facts: Mapping[str, Any]) -> str:
    """Render the content of `summarise` as HTML."""
    environment = templates()
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["leaning"] = leaning
    environment.filters["percent"] = lambda share: f"{share:.1%}"
    quality = facts["quality"]
    return environment.get_template("labels.html.j2").render(
        facts=facts,
        splits={split: heading for split, heading in SPLITS.items() if split in quality},
        definitions=DEFINITIONS,
        level_names=LEVEL_NAMES,
        pictures={
            "reliability": {
                split: reliability(figures["raw"]["reliability"], figures["calibrated"]["reliability"])
                for split, figures in quality.items()
            },
            "distributions": {name: level_bars(rows) for name, rows in facts["distributions"].items() if rows},
            "outside": outside_bars(facts["outside"]) if facts["rows"]["labels"] else None,
        },
    )


def leaning(verdict: Mapping[str, Any]) -> str:
    """Sentence that says whether the teacher is too strict or too lenient."""
    pairs = f"{verdict['pairs']:,} {verdict['split'].replace('_', '-')} pairs"
    if verdict["verdict"] is None:
        return f"Whether the teacher is too strict or too lenient is unknown: all {pairs} belong to one query."
    basis = f"{pairs} of {verdict['queries']:,} queries"
    if verdict["verdict"] == "neither":
        return f"The calibrated labels are neither too strict nor too lenient on {basis}."
    return f"The calibrated labels are {verdict['verdict']} on {basis}."


LEVEL_SHADES = ("#dee2e6", "#99d4dc", "#3b9fae", "#0b5563")
LEVEL_NAMES = ("0 irrelevant", "1 weak", "2 relevant", "3 strong")


def reliability(raw: Sequence[Mapping[str, Any]], calibrated: Sequence[Mapping[str, Any]]) -> str:
    """Draw accuracy over confidence in bins of equal mass with 95 % intervals; the diagonal is perfect calibration."""
    figure, axes = new_axes(4.6, 3.6)
    axes.plot([0, 1], [0, 1], color=SOFT, lw=1, ls="--")
    for points, colour, label in ((raw, COLOURS[1], "raw"), (calibrated, ACCENT, "calibrated")):
        confidence, accuracy, low, high = (
            np.array([point[name] for point in points]) for name in ("confidence", "accuracy", "low", "high")
        )
        reach = np.maximum([accuracy - low, high - accuracy], 0)  # rounding may put a bound slightly inside
        axes.errorbar(confidence, accuracy, yerr=reach, fmt="o-", color=colour, lw=1, elinewidth=0.8, label=label, ms=4)
    axes.set_xlim(0.2, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("confidence: probability of the most probable level")
    axes.set_ylabel("accuracy")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    return svg(figure)


def level_bars(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw the mean probability of each level as a stacked bar for each group of pairs."""
    figure, axes = new_axes(6.4, 0.36 * len(rows) + 1.0)
    bar_positions = np.arange(len(rows))
    left = np.zeros(len(rows))
    for level, (name, shade) in enumerate(zip(LEVEL_NAMES, LEVEL_SHADES, strict=True)):
        share = np.array([row["levels"][level] for row in rows])
        axes.barh(bar_positions, share, 0.7, left=left, color=shade, label=name)
        for row in np.flatnonzero(share >= 0.06):
            colour = "white" if level >= 2 else INK
            centre = left[row] + share[row] / 2
            axes.text(centre, row, f"{share[row]:.0%}", ha="center", va="center", fontsize=8, color=colour)
        left += share
    axes.set_yticks(bar_positions, [f"{row['name']} ({row['pairs']:,})" for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    return svg(figure)


def outside_bars(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw the share of pairs by their probability outside the labels."""
    figure, axes = new_axes(5.4, 2.6)
    pairs = np.array([row["pairs"] for row in rows])
    share = pairs / max(1, pairs.sum())
    bar_positions = np.arange(len(rows))
    axes.bar(bar_positions, share, 0.8, color=ACCENT)
    for row in bar_positions:
        axes.text(row, share[row], f"{pairs[row]:,}", ha="center", va="bottom", fontsize=8, color=INK)
    axes.set_xticks(bar_positions, [row["range"] for row in rows])
    axes.set_ylim(0, 1.1)
    axes.set_xlabel("probability outside the labels")
    axes.set_ylabel("share of the pairs")
    return svg(figure)


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

"""The page about labels, one self-contained HTML file. The page names data that the artifact lacks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prectr.core import progress
from prectr.core.errors import PrectrError
from prectr.labelling.label_quality import DEFINITIONS
from prectr.reports.drawing import ACCENT, COLOURS, INK, SOFT, svg, templates
from prectr.reports.drawing import axes as new_axes
from prectr.reports.labels import summarise

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
    place = np.arange(len(rows))
    left = np.zeros(len(rows))
    for level, (name, shade) in enumerate(zip(LEVEL_NAMES, LEVEL_SHADES, strict=True)):
        share = np.array([row["levels"][level] for row in rows])
        axes.barh(place, share, 0.7, left=left, color=shade, label=name)
        for row in np.flatnonzero(share >= 0.06):
            colour = "white" if level >= 2 else INK
            centre = left[row] + share[row] / 2
            axes.text(centre, row, f"{share[row]:.0%}", ha="center", va="center", fontsize=8, color=colour)
        left += share
    axes.set_yticks(place, [f"{row['name']} ({row['pairs']:,})" for row in rows])
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
    place = np.arange(len(rows))
    axes.bar(place, share, 0.8, color=ACCENT)
    for row in place:
        axes.text(row, share[row], f"{pairs[row]:,}", ha="center", va="bottom", fontsize=8, color=INK)
    axes.set_xticks(place, [row["range"] for row in rows])
    axes.set_ylim(0, 1.1)
    axes.set_xlabel("probability outside the labels")
    axes.set_ylabel("share of the pairs")
    return svg(figure)

"""The page about labels: one self-contained HTML file; what the artifact does not hold is said, not left blank."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prectr.core import progress
from prectr.core.errors import PrectrError
from prectr.label_report import pictures
from prectr.label_report.summary import summarise
from prectr.labelling.label_quality import DEFINITIONS
from prectr.reporting.drawing import templates

SPLITS = {
    "held_back": "held-back queries, on which it is measured",
    "validation": "validation queries, which the calibration is fitted on",
}


def write_label_page(labels: Path, html: Path) -> None:
    """Write the page about an artifact of `label`.

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


def render(found: Mapping[str, Any]) -> str:
    """The page as HTML, from what `summarise` gives."""
    environment = templates(Path(__file__).parent)
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["leaning"] = leaning
    environment.filters["percent"] = lambda share: f"{share:.1%}"
    quality = found["quality"]
    return environment.get_template("page.html.j2").render(
        found=found,
        splits={split: heading for split, heading in SPLITS.items() if split in quality},
        definitions=DEFINITIONS,
        level_names=pictures.LEVEL_NAMES,
        pictures={
            "reliability": {
                split: pictures.reliability(figures["raw"]["reliability"], figures["calibrated"]["reliability"])
                for split, figures in quality.items()
            },
            "distributions": {name: pictures.level_bars(rows) for name, rows in found["distributions"].items() if rows},
            "outside": pictures.outside_bars(found["outside"]) if found["rows"]["labels"] else None,
        },
    )


def leaning(verdict: Mapping[str, Any]) -> str:
    """Whether the teacher is too strict or too lenient, as a sentence."""
    pairs = f"{verdict['pairs']:,} {verdict['split'].replace('_', '-')} pairs"
    if verdict["verdict"] is None:
        return f"Whether the teacher is too strict or too lenient cannot be told: all {pairs} are of one query."
    basis = f"{pairs} of {verdict['queries']:,} queries"
    if verdict["verdict"] == "neither":
        return f"The calibrated labels are neither too strict nor too lenient, as far as {basis} can tell."
    return f"The calibrated labels are {verdict['verdict']}, by {basis}."

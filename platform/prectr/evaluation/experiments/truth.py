"""A simulated test beside what is true: for who wants to know what online tests are worth."""

from collections.abc import Mapping, Sequence
from typing import Any

from prectr.evaluation.experiments.measures import MEASURES


def against_truth(report: Mapping[str, Any], truths: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """For each measure the true values, and whether the intervals of a report hold the true difference.

    Args:
        report: of `analyse`, with the variants control and treatment.
        truths: expected sums of both, by the names that `measures` uses.
    """
    made = {}
    for measure in MEASURES:
        if measure.name not in report["measures"]:
            continue
        control, treatment = (truth[measure.above] / truth[measure.below] for truth in truths)
        difference = treatment - control
        told = report["measures"][measure.name]["treatments"]["treatment"]
        intervals = {
            "fixed": told["bootstrap"] or told["delta"],
            "adjusted": told["adjusted"],
            "always_valid": told["always_valid"],
        }
        made[measure.name] = {
            "control": control,
            "treatment": treatment,
            "difference": difference,
            "lift": difference / control if control else float("nan"),
            "covered": {
                name: bool(interval["low"] <= difference <= interval["high"])
                for name, interval in intervals.items()
                if interval is not None
            },
        }
    return made

"""Comparison of a simulated test's estimates with the true effects."""

from collections.abc import Mapping, Sequence
from typing import Any

from prectr.evaluation.experiments.measures import MEASURES


def against_truth(report: Mapping[str, Any], truths: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Compute the true values of each measure, and check whether the report's intervals hold the true difference.

    Args:
        report: the report of `analyse`, with the variants control and treatment.
        truths: expected sums of control and treatment, by the names in `measures`.
    """
    comparison = {}
    for measure in MEASURES:
        if measure.name not in report["measures"]:
            continue
        control, treatment = (truth[measure.above] / truth[measure.below] for truth in truths)
        difference = treatment - control
        estimate = report["measures"][measure.name]["treatments"]["treatment"]
        intervals = {
            "fixed": estimate["bootstrap"] or estimate["delta"],
            "adjusted": estimate["adjusted"],
            "always_valid": estimate["always_valid"],
        }
        comparison[measure.name] = {
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
    return comparison

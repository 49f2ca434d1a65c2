"""Pictures of the report as inline SVG, so that the page needs no file beside it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prectr.reporting.drawing import ACCENT, COLOURS, INK, SOFT, svg
from prectr.reporting.drawing import axes as new_axes


def model_bars(models: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> str:
    """AUC of each model over all and over cold users, side by side."""
    labels = [names.get(name, name) for name in models]
    everyone = [_number(slices["all"]["auc"]) for slices in models.values()]
    cold = [_number(slices["cold"]["auc"]) for slices in models.values()]
    figure, axes = new_axes(6.4, 0.45 * len(labels) + 1.1)
    place = np.arange(len(labels))
    axes.barh(place - 0.19, everyone, 0.36, color=ACCENT, label="all users")
    axes.barh(place + 0.19, cold, 0.36, color=SOFT, label="cold users")
    axes.set_yticks(place, labels)
    axes.invert_yaxis()
    finite = [value for value in (*everyone, *cold) if np.isfinite(value)]
    axes.set_xlim(max(0.45, min(finite, default=0.5) - 0.03), max(finite, default=0.6) + 0.02)
    for row, values in ((-0.19, everyone), (0.19, cold)):
        for number, value in enumerate(values):
            axes.text(value, number + row, f" {value:.3f}", va="center", fontsize=8, color=INK)
    axes.set_xlabel("AUC at the logged position")
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return svg(figure)


def learning_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]], names: Mapping[str, str]) -> str:
    """Validation GAUC of each ranker over its steps."""
    figure, axes = new_axes(5.4, 2.9)
    for (name, points), colour in zip(curves.items(), COLOURS[1:] * 4):
        steps, values = [point["step"] for point in points], [_number(point["gauc"]) for point in points]
        axes.plot(steps, values, color=colour, marker="o", markersize=3, label=names.get(name, name))
    axes.set_xlabel("training step")
    axes.set_ylabel("validation GAUC")
    axes.legend(frameon=False, fontsize=8)
    return svg(figure)


def quality_bars(quality: Mapping[str, Any]) -> str:
    """Kappa and AUC of teacher, student and lexical baseline."""
    figure, axes = new_axes(5.4, 2.6)
    shown = [name for name in ("teacher", "student", "lexical") if name in quality]
    place = np.arange(2)
    for number, (name, colour) in enumerate(zip(shown, (COLOURS[4], ACCENT, SOFT))):
        values = [_number(quality[name][column]) for column in ("kappa", "auc")]
        axes.bar(place + (number - 1) * 0.26, values, 0.24, color=colour, label=name)
        for x, value in zip(place + (number - 1) * 0.26, values):
            axes.text(x, value, f"{value:.2f}", ha="center", va="bottom", fontsize=8, color=INK)
    axes.set_xticks(place, ["quadratic kappa", "AUC of grade >= 2"])
    axes.set_ylim(0, 1.12)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper left")
    return svg(figure)


def _number(value: float | None) -> float:
    """A figure that is not defined is NaN, which is not drawn."""
    return float("nan") if value is None else value

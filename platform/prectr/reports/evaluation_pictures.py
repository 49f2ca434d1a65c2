"""Pictures of the evaluation report as inline SVG, so that the page needs no other file."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prectr.reports.drawing import ACCENT, COLOURS, INK, SOFT, new_panels, svg
from prectr.reports.drawing import axes as new_axes
from prectr.reports.evaluation import StageTime

VERDICT_COLOURS = {"better": ACCENT, "worse": "#c2255c", "no difference": "#868e96"}
MODEL_COLOURS = {
    "prectr-v2": ACCENT,
    "prectr": "#f08c00",
    "din": "#5f3dc4",
    "wide-deep": "#868e96",
    "oracle": "#2b8a3e",
}
"""Colours of the main models; the curves of other models are thin and grey."""


def differences(evaluation: Mapping[str, Any], panels: Sequence[tuple[str, str, str]]) -> str | None:
    """Draw each model's difference to the base with its interval, one panel per (slice, metric, heading).

    The oracle is left out: on its scale all other differences would vanish. None if no panel has figures.
    """
    figures = evaluation["figures"]
    available = [panel for panel in panels if figures.get(panel[0], {}).get(panel[1])]
    names = [name for name in evaluation["models"] if name not in ("oracle", "position-only", evaluation["base"])]
    if not available or not names:
        return None
    figure, drawn = new_panels(1, len(available), 2.0 + 2.3 * len(available), 0.36 * len(names) + 1.0)
    bar_positions = np.arange(len(names))
    for axes, (part, metric, heading) in zip(drawn[0], available):
        axes.axvline(0, color=INK, lw=0.8)
        for row, name in enumerate(names):
            difference = (figures[part][metric].get(name) or {}).get("difference")
            if difference is None or difference["value"] is None:
                continue
            colour = VERDICT_COLOURS.get(difference["verdict"], SOFT)
            axes.plot([_number(difference["low"]), _number(difference["high"])], [row, row], color=colour, lw=2.2)
            axes.plot(difference["value"], row, "o", color=colour, ms=5)
        axes.set_title(heading, fontsize=9, color=INK)
        axes.set_yticks(bar_positions, [evaluation["models"][name]["label"] for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="y", color="#f1f3f5")
        axes.set_axisbelow(True)
    for axes in drawn[0][1:]:
        axes.tick_params(labelleft=False)
    return svg(figure)


def calibration_curves(evaluation: Mapping[str, Any]) -> str | None:
    """Draw the actual over the predicted click rate, in bins of equal numbers of rows; None without curves."""
    curves = {name: curve for name, curve in evaluation["calibration"].items() if name not in ("position-only",)}
    if not curves:
        return None
    figure, axes = new_axes(4.6, 4.0)
    rates = [value for curve in curves.values() for value in (*curve["predicted"], *curve["actual"]) if value > 0]
    low, high = min(rates, default=0.01) * 0.8, max(rates, default=0.1) * 1.2
    axes.plot([low, high], [low, high], color=SOFT, lw=1, ls="--", label="calibrated")
    for name, curve in curves.items():
        colour, width, order = _style(name)
        label = evaluation["models"][name]["label"]
        axes.plot(
            curve["predicted"], curve["actual"], color=colour, lw=width, zorder=order, label=_legend_label(name, label)
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:.3g}")
        axis.set_minor_formatter(lambda *_: "")
    axes.set_xlabel("predicted click rate")
    axes.set_ylabel("actual click rate")
    axes.legend(frameon=False, fontsize=8)
    return svg(figure)


def incentive_curves(evaluation: Mapping[str, Any]) -> str | None:
    """Draw mean tau over the true threshold of user and query, for weak and for good items; None without curves."""
    curves = evaluation["incentive"]
    if not curves:
        return None
    figure, drawn = new_panels(1, len(curves), 0.9 + 3.1 * len(curves), 2.9)
    for axes, (name, curve) in zip(drawn[0], curves.items()):
        for kind, colour, label in (("weak", "#f08c00", "grades 0, 1"), ("good", ACCENT, "grades 2, 3")):
            values = [_number(value) for value in curve[kind]]
            axes.plot([_number(value) for value in curve["threshold"]], values, "o-", color=colour, ms=3, label=label)
        axes.set_title(f"{evaluation['models'][name]['label']}: Spearman {_number(curve['spearman']):+.2f}", fontsize=9)
        axes.set_xlabel("true threshold T_uq (low: tolerant)")
        axes.set_ylabel("mean incentive tau")
        axes.legend(frameon=False, fontsize=8)
    return svg(figure)


def position_curves(evaluation: Mapping[str, Any]) -> str | None:
    """Draw the click odds at each position relative to the first; None with fewer than two positions."""
    curves = evaluation["position"]
    if not curves["models"] or len(curves["position"]) < 2:
        return None
    figure, axes = new_axes(4.6, 3.2)
    for name, values in curves["models"].items():
        colour, width, order = _style(name)
        label = _legend_label(name, evaluation["models"][name]["label"])
        axes.plot(curves["position"], values, color=colour, lw=width, zorder=order, label=label)
    axes.plot(
        curves["position"],
        [_number(value) for value in curves["logged"]],
        "o",
        color=INK,
        ms=3,
        label="logged click rate",
    )
    if "truth" in curves:
        axes.plot(curves["position"], curves["truth"], color="#2b8a3e", lw=1.2, ls="--", label="true examination")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("position")
    axes.set_ylabel("relative to position 1")
    axes.legend(frameon=False, fontsize=8)
    return svg(figure)


def learning_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]], labels: Mapping[str, str]) -> str:
    """Draw the validation GAUC of each ranker over its training steps."""
    figure, axes = new_axes(4.6, 3.2)
    for name, points in curves.items():
        colour, width, order = _style(name)
        steps, values = [point["step"] for point in points], [_number(point["gauc"]) for point in points]
        label = _legend_label(name, labels[name])
        axes.plot(steps, values, "o-", color=colour, lw=width, ms=2 + width / 2, zorder=order, label=label)
    axes.set_xlabel("training step")
    axes.set_ylabel("validation GAUC")
    axes.legend(frameon=False, fontsize=8)
    return svg(figure)


def quality_bars(quality: Mapping[str, Any]) -> str:
    """Draw kappa and AUC of teacher, student and lexical baseline."""
    figure, axes = new_axes(5.4, 2.6)
    shown = [name for name in ("teacher", "student", "lexical") if name in quality]
    bar_positions = np.arange(2)
    for number, (name, colour) in enumerate(zip(shown, (COLOURS[4], ACCENT, SOFT))):
        values = [_number(quality[name][column]) for column in ("kappa", "auc")]
        axes.bar(bar_positions + (number - 1) * 0.26, values, 0.24, color=colour, label=name)
        for x, value in zip(bar_positions + (number - 1) * 0.26, values):
            axes.text(x, value, f"{value:.2f}", ha="center", va="bottom", fontsize=8, color=INK)
    axes.set_xticks(bar_positions, ["quadratic kappa", "AUC of grade >= 2"])
    axes.set_ylim(0, 1.12)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper left")
    return svg(figure)


def stage_bars(times: Sequence[StageTime]) -> str:
    """Draw the wall time of each stage."""
    figure, axes = new_axes(5.6, 0.26 * len(times) + 0.8)
    bar_positions = np.arange(len(times))
    axes.barh(bar_positions, [time.seconds for time in times], 0.62, color=ACCENT)
    for row, time in enumerate(times):
        runs = f" ({time.runs} runs)" if time.runs > 1 else ""
        axes.text(time.seconds, row, f" {time.seconds:,.0f} s{runs}", va="center", fontsize=8, color=INK)
    axes.set_yticks(bar_positions, [time.name for time in times])
    axes.set_ylim(len(times) - 0.5, -0.5)
    axes.set_xlim(0, max((time.seconds for time in times), default=1) * 1.25)
    axes.set_xlabel("seconds of wall time")
    return svg(figure)


def _style(name: str) -> tuple[str, float, int]:
    """Colour, width and order of a model's line."""
    return (MODEL_COLOURS[name], 1.8, 3) if name in MODEL_COLOURS else ("#ced4da", 0.9, 2)


def _legend_label(name: str, label: str) -> str | None:
    """Label of a main model; None keeps other models out of the legend."""
    return label if name in MODEL_COLOURS else None


def _number(value: float | None) -> float:
    """The figure, or NaN if it is not defined; NaN is not drawn."""
    return float("nan") if value is None else value

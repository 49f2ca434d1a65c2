"""Pictures of the report as inline SVG, so that the page needs no file beside it."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

INK, ACCENT, SOFT = "#1f2933", "#0b7285", "#adb5bd"
COLOURS = ("#868e96", "#f08c00", "#0b7285", "#c2255c", "#5f3dc4")


def model_bars(models: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> str:
    """AUC of each model over all and over cold users, side by side."""
    labels = [names.get(name, name) for name in models]
    everyone = [_number(slices["all"]["auc"]) for slices in models.values()]
    cold = [_number(slices["cold"]["auc"]) for slices in models.values()]
    figure, axes = _axes(6.4, 0.45 * len(labels) + 1.1)
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
    return _svg(figure)


def examination_curve(exponent: float, positions: int = 20) -> str:
    """exam(position) as it was fitted."""
    figure, axes = _axes(4.2, 2.6)
    position = np.arange(1, positions + 1)
    axes.plot(position, position**-exponent, color=ACCENT, marker="o", markersize=3)
    axes.set_xlabel("position")
    axes.set_ylabel("examined")
    axes.set_ylim(0, 1.05)
    return _svg(figure)


def click_curve(a: float, s: float, eps: float) -> str:
    """Click probability given examination over relevance, for a strict, a middling and a tolerant user."""
    figure, axes = _axes(4.2, 2.6)
    relevance = np.linspace(0, 1, 100)
    for threshold, colour, name in (
        (0.3, COLOURS[1], "tolerant"),
        (0.55, ACCENT, "middling"),
        (0.8, COLOURS[3], "strict"),
    ):
        probability = eps + a / (1 + np.exp(-(relevance - threshold) / s))
        axes.plot(relevance, probability, color=colour, label=f"{name} (threshold {threshold})")
    axes.set_xlabel("expected relevance (0..1)")
    axes.set_ylabel("click if examined")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def learning_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]], names: Mapping[str, str]) -> str:
    """Validation GAUC of each ranker over its steps."""
    figure, axes = _axes(5.4, 2.9)
    for (name, points), colour in zip(curves.items(), COLOURS[1:] * 4):
        steps, values = [point["step"] for point in points], [_number(point["gauc"]) for point in points]
        axes.plot(steps, values, color=colour, marker="o", markersize=3, label=names.get(name, name))
    axes.set_xlabel("training step")
    axes.set_ylabel("validation GAUC")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def quality_bars(quality: Mapping[str, Any]) -> str:
    """Kappa and AUC of teacher, student and lexical baseline."""
    figure, axes = _axes(5.4, 2.6)
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
    return _svg(figure)


def tolerance_bars(rows: Sequence[Mapping[str, Any]]) -> str:
    """Spearman correlation of mined and true tolerance by activity."""
    figure, axes = _axes(4.2, 2.6)
    axes.bar([row["requests"] for row in rows], [row["spearman"] for row in rows], color=ACCENT, width=0.6)
    for number, row in enumerate(rows):
        axes.text(number, row["spearman"], f"{row['spearman']:.2f}", ha="center", va="bottom", fontsize=8, color=INK)
    axes.set_ylim(0, 1)
    axes.set_xlabel("requests of the user")
    axes.set_ylabel("Spearman with the truth")
    return _svg(figure)


def _number(value: float | None) -> float:
    """A figure that is not defined is NaN, which is not drawn."""
    return float("nan") if value is None else value


def _axes(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)
    return figure, axes


def _svg(figure: Any) -> str:
    stream = io.StringIO()
    # Fixed metadata and hash salt: the same artifacts give the same page.
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "prectr", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    content = stream.getvalue()
    return content[content.index("<svg") :]

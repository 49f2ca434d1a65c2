"""How pictures and pages are made, whatever they show: inline SVG with fixed metadata, templates with one style."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from prectr.reports import TEMPLATES

INK, ACCENT, SOFT = "#1f2933", "#0b7285", "#adb5bd"
COLOURS = ("#868e96", "#f08c00", "#0b7285", "#c2255c", "#5f3dc4")


def axes(width: float, height: float) -> tuple[Any, Any]:
    """A figure of so many inches and its axes."""
    figure, made = new_panels(1, 1, width, height)
    return figure, made[0][0]


def new_panels(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    """A figure of so many inches and its axes by row and column."""
    figure = Figure(figsize=(width, height), layout="constrained")
    made = figure.subplots(rows, columns, squeeze=False)
    for one in made.flat:
        for side in ("top", "right"):
            one.spines[side].set_visible(False)
        one.tick_params(labelsize=8, colors=INK)
        one.xaxis.label.set_fontsize(9)
        one.yaxis.label.set_fontsize(9)
    return figure, made


def svg(figure: Any) -> str:
    """The figure as an `<svg>` element; the same figure gives the same text."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "prectr", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    content = stream.getvalue()
    return content[content.index("<svg") :]


def templates(*folders: Path) -> Environment:
    """Templates of this room, among them `style.css`, and of further folders, which are searched first."""
    places: Sequence[Path] = (*folders, TEMPLATES)
    environment = Environment(
        loader=FileSystemLoader(places), undefined=StrictUndefined, autoescape=True, trim_blocks=True
    )
    environment.filters["figure"] = lambda value: "–" if value is None or value != value else f"{value:.4f}"
    return environment

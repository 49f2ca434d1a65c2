"""Shared parts of pictures and pages: figures with one style, inline SVG with fixed metadata, templates."""

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
    """Create a figure with one panel; returns the figure and its axes. `width` and `height` are in inches."""
    figure, panels = new_panels(1, 1, width, height)
    return figure, panels[0][0]


def new_panels(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    """Create a figure with panels; returns the figure and its axes by row and column. Sizes are in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.flat:
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
        panel.tick_params(labelsize=8, colors=INK)
        panel.xaxis.label.set_fontsize(9)
        panel.yaxis.label.set_fontsize(9)
    return figure, panels


def svg(figure: Any) -> str:
    """Render a figure as an `<svg>` element; equal figures give equal text."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "prectr", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    content = stream.getvalue()
    return content[content.index("<svg") :]


def templates(*folders: Path) -> Environment:
    """Create a Jinja environment with the templates of this room and of `folders`, which are searched first."""
    search_path: Sequence[Path] = (*folders, TEMPLATES)
    environment = Environment(
        loader=FileSystemLoader(search_path), undefined=StrictUndefined, autoescape=True, trim_blocks=True
    )
    environment.filters["figure"] = lambda value: "–" if value is None or value != value else f"{value:.4f}"
    return environment

"""The page about mined preferences, and its section in the report, as self-contained HTML."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prectr.evaluation.tolerance_check import ESTIMATES
from prectr.reports.drawing import ACCENT, COLOURS, SOFT, svg, templates
from prectr.reports.drawing import axes as new_axes
from prectr.reports.preferences import MOST_WORDS
from prectr.reports.preferences_terminal import interval

FILTERS = {"interval": interval}
"""Jinja filters that `preferences_section.html.j2` needs."""


def section(
    parameters: Mapping[str, Any],
    pairs_by_source: Mapping[str, int],
    coverage: Mapping[str, Any] | None = None,
    check: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Collect the content of `preferences_section.html.j2`.

    Args:
        parameters: click curve and examination, from the manifest of the artifact.
        pairs_by_source: number of pairs by source of relevance, from the manifest.
        coverage: shares by source (`coverage_by_source`); None without the relevance artifact.
        check: figures of `check_against_truth`; None on a real log.
    """
    svgs = {
        "examination": examination_curve(parameters["examination"]["exponent"]),
        "click": click_curve(**parameters["click"]),
    }
    if check is not None:
        svgs |= {side: truth_bars(check[side], side) for side in ("users", "queries")}
    return {
        "parameters": parameters,
        "pairs_by_source": pairs_by_source,
        "coverage": coverage,
        "check": check,
        "pictures": svgs,
    }


def render_overview(facts: Mapping[str, Any], coverage: Mapping[str, Any] | None = None) -> str:
    """Render the page as HTML.

    Args:
        facts: figures of `overview`.
        coverage: shares by source (`coverage_by_source`); None without the relevance artifact.
    """
    environment = templates()
    environment.filters |= FILTERS
    return environment.get_template("preferences.html.j2").render(
        facts=facts,
        preferences=section(facts["parameters"], facts["pairs_by_source"], coverage),
        pictures={
            "categories": category_tolerances(facts["categories"]["rows"]),
            "queries": query_tolerances(facts["head_queries"]),
            "length": tolerance_by_length(facts["by_length"], MOST_WORDS),
            "impressions": share_bars(facts["queries_by_impressions"], "impressions"),
            "users": share_bars(facts["queries_by_users"], "users"),
            "cold": cold_start(facts["users_by_requests"], facts["user_prior"]["sd"]),
        },
    )


_TOLERANCE = "tolerance (least accepted relevance, 0..1)"


def examination_curve(exponent: float, positions: int = 20) -> str:
    """Draw the fitted examination probability by position."""
    figure, axes = new_axes(4.2, 2.6)
    position = np.arange(1, positions + 1)
    axes.plot(position, position**-exponent, color=ACCENT, marker="o", markersize=3)
    axes.set_xlabel("position")
    axes.set_ylabel("examined")
    axes.set_ylim(0, 1.05)
    return svg(figure)


def click_curve(a: float, s: float, eps: float) -> str:
    """Draw click probability if examined over relevance, for a strict, an average and a tolerant user."""
    figure, axes = new_axes(4.2, 2.6)
    relevance = np.linspace(0, 1, 100)
    for threshold, colour, name in (
        (0.3, COLOURS[1], "tolerant"),
        (0.55, ACCENT, "average"),
        (0.8, COLOURS[3], "strict"),
    ):
        probability = eps + a / (1 + np.exp(-(relevance - threshold) / s))
        axes.plot(relevance, probability, color=colour, label=f"{name} (threshold {threshold})")
    axes.set_xlabel("expected relevance (0..1)")
    axes.set_ylabel("click if examined")
    axes.legend(frameon=False, fontsize=8)
    return svg(figure)


def truth_bars(check: Mapping[str, Any], side: str) -> str:
    """Draw the Spearman correlation of each estimate with the truth, by size of the history, with intervals.

    Args:
        check: one side of `check_against_truth`.
        side: "users" or "queries".
    """
    rows = [row for row in check["all"] if row["posterior"]["spearman"] is not None]
    figure, axes = new_axes(4.8, 2.8)
    bar_positions = np.arange(len(rows))
    for number, (name, colour) in enumerate(zip(ESTIMATES, (ACCENT, SOFT, COLOURS[1]), strict=True)):
        values = np.array([[row[name][bound] for bound in ("spearman", "low", "high")] for row in rows], dtype=float)
        values = values.reshape(-1, 3)
        reach = np.abs(values[:, 1:].T - values[:, 0])
        axes.bar(
            bar_positions + (number - 1) * 0.27,
            values[:, 0],
            0.25,
            color=colour,
            label=name,
            yerr=reach,
            ecolor="#495057",
        )
    axes.set_xticks(bar_positions, [row[check["by"]] for row in rows])
    axes.set_ylim(top=1)
    axes.set_xlabel(f"{check['by']} of {side}")
    axes.set_ylabel("Spearman with the truth")
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return svg(figure)


def category_tolerances(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw mean and spread of the queries' tolerances by category, and the tolerance pooled over the category."""
    ordered = sorted(rows, key=lambda row: row["mean"])
    figure, axes = new_axes(6.4, 0.24 * len(ordered) + 1.0)
    bar_positions = np.arange(len(ordered))
    spread = [row["spread"] or 0.0 for row in ordered]
    axes.errorbar(
        [row["mean"] for row in ordered],
        bar_positions,
        xerr=spread,
        fmt="o",
        color=ACCENT,
        ecolor=SOFT,
        label="its queries",
    )
    pooled = [np.nan if row["pooled"] is None else row["pooled"] for row in ordered]
    axes.plot(pooled, bar_positions, "d", color=COLOURS[1], markersize=4, label="all its rows together")
    axes.set_yticks(bar_positions, [_text(row["category"]) or "(none)" for row in ordered])
    axes.set_xlim(0, 1.1)
    axes.set_xlabel(_TOLERANCE)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return svg(figure)


def query_tolerances(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw posterior mean and deviation of the head queries."""
    ordered = sorted(rows, key=lambda row: row["tolerance"])
    figure, axes = new_axes(6.4, 0.24 * len(ordered) + 0.8)
    bar_positions = np.arange(len(ordered))
    axes.errorbar(
        [row["tolerance"] for row in ordered],
        bar_positions,
        xerr=[row["tolerance_sd"] for row in ordered],
        fmt="o",
        color=ACCENT,
        ecolor=SOFT,
    )
    axes.set_yticks(bar_positions, [_text(row["query"]) for row in ordered])
    axes.set_xlim(0, 1.1)
    axes.set_xlabel(_TOLERANCE)
    return svg(figure)


def tolerance_by_length(rows: Sequence[Mapping[str, Any]], most_words: int) -> str:
    """Draw the mean tolerance of queries by number of words, with a band that holds four fifths of the queries."""
    figure, axes = new_axes(4.8, 2.8)
    words = [row["words"] for row in rows]
    axes.fill_between(words, [row["p10"] for row in rows], [row["p90"] for row in rows], color=SOFT, alpha=0.4, lw=0)
    axes.plot(words, [row["mean"] for row in rows], color=ACCENT, marker="o", markersize=4)
    axes.set_xticks(words, [f"{count}+" if count == most_words else str(count) for count in words])
    axes.set_ylim(0, 1.1)
    axes.set_xlabel("words of the query")
    axes.set_ylabel("tolerance")
    return svg(figure)


def share_bars(rows: Sequence[Mapping[str, Any]], count_name: str) -> str:
    """Draw the shares of queries and of impressions by ranges of a count."""
    figure, axes = new_axes(5.6, 2.6)
    bar_positions = np.arange(len(rows))
    for offset, name, colour in ((-0.19, "queries", ACCENT), (0.19, "impressions", SOFT)):
        axes.bar(bar_positions + offset, [row[name] for row in rows], 0.36, color=colour, label=f"share of {name}")
    axes.set_xticks(bar_positions, [row["range"] for row in rows])
    axes.set_xlabel(f"{count_name} of the query")
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return svg(figure)


def cold_start(rows: Sequence[Mapping[str, Any]], prior_sd: float) -> str:
    """Draw the uncertainty of users' tolerances, and their spread over users, by number of requests."""
    figure, axes = new_axes(4.8, 2.8)
    shown = [row for row in rows if row["users"]]
    bar_positions = np.arange(len(shown))
    axes.axhline(prior_sd, color=COLOURS[0], lw=1, ls="--", label="prior sd")
    for name, colour, label in (
        ("posterior_sd", ACCENT, "mean posterior sd"),
        ("spread", COLOURS[1], "spread of posterior means"),
    ):
        axes.plot(
            bar_positions,
            [np.nan if row[name] is None else row[name] for row in shown],
            "o-",
            color=colour,
            label=label,
        )
    axes.set_xticks(bar_positions, [f"{row['range']}\n{row['users']:,}" for row in shown])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("requests of the user (faded); users below")
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return svg(figure)


def _text(name: str) -> str:
    """Shorten a label and escape `$`, which matplotlib reads as mathematics."""
    return (name if len(name) <= 40 else f"{name[:39]}…").replace("$", r"\$")

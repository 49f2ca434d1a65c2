"""The page about mined preferences, and its section in the report: one HTML file, nothing loaded from elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prectr.evaluation.tolerance_check import ESTIMATES
from prectr.reports.drawing import ACCENT, COLOURS, SOFT, svg, templates
from prectr.reports.drawing import axes as new_axes
from prectr.reports.preferences import MOST_WORDS
from prectr.reports.preferences_terminal import interval

"""Where the templates are."""
FILTERS = {"interval": interval}


def section(
    parameters: Mapping[str, Any],
    pairs_by_source: Mapping[str, int],
    coverage: Mapping[str, Any] | None = None,
    check: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What `preferences_section.html.j2` shows.

    Args:
        parameters: of the artifact's manifest: click curve and examination.
        pairs_by_source: of the artifact's manifest.
        coverage: shares by source, where the relevance artifact is at hand.
        check: of `check_against_truth`, on a simulated log.
    """
    drawn = {
        "examination": examination_curve(parameters["examination"]["exponent"]),
        "click": click_curve(**parameters["click"]),
    }
    if check is not None:
        drawn |= {of: truth_bars(check[of], of) for of in ("users", "queries")}
    return {
        "parameters": parameters,
        "pairs_by_source": pairs_by_source,
        "coverage": coverage,
        "check": check,
        "pictures": drawn,
    }


def render_overview(found: Mapping[str, Any], coverage: Mapping[str, Any] | None = None) -> str:
    """The page as HTML.

    Args:
        found: of `overview`.
        coverage: shares by source, where the relevance artifact is at hand.
    """
    environment = templates()
    environment.filters |= FILTERS
    return environment.get_template("preferences.html.j2").render(
        found=found,
        preferences=section(found["parameters"], found["pairs_by_source"], coverage),
        pictures={
            "categories": category_tolerances(found["categories"]["rows"]),
            "queries": query_tolerances(found["head_queries"]),
            "length": tolerance_by_length(found["by_length"], MOST_WORDS),
            "impressions": share_bars(found["queries_by_impressions"], "impressions"),
            "users": share_bars(found["queries_by_users"], "users"),
            "cold": cold_start(found["users_by_requests"], found["user_prior"]["sd"]),
        },
    )


_TOLERANCE = "tolerance (relevance asked for, 0..1)"


def examination_curve(exponent: float, positions: int = 20) -> str:
    """exam(position) as it was fitted."""
    figure, axes = new_axes(4.2, 2.6)
    position = np.arange(1, positions + 1)
    axes.plot(position, position**-exponent, color=ACCENT, marker="o", markersize=3)
    axes.set_xlabel("position")
    axes.set_ylabel("examined")
    axes.set_ylim(0, 1.05)
    return svg(figure)


def click_curve(a: float, s: float, eps: float) -> str:
    """Click probability given examination over relevance, for a strict, a middling and a tolerant user."""
    figure, axes = new_axes(4.2, 2.6)
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
    return svg(figure)


def truth_bars(found: Mapping[str, Any], of: str) -> str:
    """Spearman with the truth of posterior, naive figure and ceiling, by how much is known; intervals as lines.

    Args:
        found: one side of `check_against_truth`.
        of: "users" or "queries".
    """
    rows = [row for row in found["all"] if row["posterior"]["spearman"] is not None]
    figure, axes = new_axes(4.8, 2.8)
    place = np.arange(len(rows))
    for number, (name, colour) in enumerate(zip(ESTIMATES, (ACCENT, SOFT, COLOURS[1]), strict=True)):
        values = np.array([[row[name][bound] for bound in ("spearman", "low", "high")] for row in rows], dtype=float)
        values = values.reshape(-1, 3)
        reach = np.abs(values[:, 1:].T - values[:, 0])
        axes.bar(
            place + (number - 1) * 0.27, values[:, 0], 0.25, color=colour, label=name, yerr=reach, ecolor="#495057"
        )
    axes.set_xticks(place, [row[found["by"]] for row in rows])
    axes.set_ylim(top=1)
    axes.set_xlabel(f"{found['by']} of {of}")
    axes.set_ylabel("Spearman with the truth")
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return svg(figure)


def category_tolerances(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mean and spread of the queries' tolerances in each category, and the category's own."""
    ordered = sorted(rows, key=lambda row: row["mean"])
    figure, axes = new_axes(6.4, 0.24 * len(ordered) + 1.0)
    place = np.arange(len(ordered))
    spread = [row["spread"] or 0.0 for row in ordered]
    axes.errorbar(
        [row["mean"] for row in ordered], place, xerr=spread, fmt="o", color=ACCENT, ecolor=SOFT, label="its queries"
    )
    pooled = [np.nan if row["pooled"] is None else row["pooled"] for row in ordered]
    axes.plot(pooled, place, "d", color=COLOURS[1], markersize=4, label="all its rows together")
    axes.set_yticks(place, [_text(row["category"]) or "(none)" for row in ordered])
    axes.set_xlim(0, 1.1)
    axes.set_xlabel(_TOLERANCE)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return svg(figure)


def query_tolerances(rows: Sequence[Mapping[str, Any]]) -> str:
    """Posterior mean and deviation of the head queries."""
    ordered = sorted(rows, key=lambda row: row["tolerance"])
    figure, axes = new_axes(6.4, 0.24 * len(ordered) + 0.8)
    place = np.arange(len(ordered))
    axes.errorbar(
        [row["tolerance"] for row in ordered],
        place,
        xerr=[row["tolerance_sd"] for row in ordered],
        fmt="o",
        color=ACCENT,
        ecolor=SOFT,
    )
    axes.set_yticks(place, [_text(row["query"]) for row in ordered])
    axes.set_xlim(0, 1.1)
    axes.set_xlabel(_TOLERANCE)
    return svg(figure)


def tolerance_by_length(rows: Sequence[Mapping[str, Any]], most_words: int) -> str:
    """Mean tolerance of queries by their words, with the band that holds four fifths of them."""
    figure, axes = new_axes(4.8, 2.8)
    words = [row["words"] for row in rows]
    axes.fill_between(words, [row["p10"] for row in rows], [row["p90"] for row in rows], color=SOFT, alpha=0.4, lw=0)
    axes.plot(words, [row["mean"] for row in rows], color=ACCENT, marker="o", markersize=4)
    axes.set_xticks(words, [f"{count}+" if count == most_words else str(count) for count in words])
    axes.set_ylim(0, 1.1)
    axes.set_xlabel("words of the query")
    axes.set_ylabel("tolerance")
    return svg(figure)


def share_bars(rows: Sequence[Mapping[str, Any]], of: str) -> str:
    """Share of queries and of impressions in each range of a count."""
    figure, axes = new_axes(5.6, 2.6)
    place = np.arange(len(rows))
    for offset, name, colour in ((-0.19, "queries", ACCENT), (0.19, "impressions", SOFT)):
        axes.bar(place + offset, [row[name] for row in rows], 0.36, color=colour, label=f"share of {name}")
    axes.set_xticks(place, [row["range"] for row in rows])
    axes.set_xlabel(f"{of} of the query")
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return svg(figure)


def cold_start(rows: Sequence[Mapping[str, Any]], prior_sd: float) -> str:
    """How uncertain a user's tolerance is, and how much users differ, by what they did."""
    figure, axes = new_axes(4.8, 2.8)
    shown = [row for row in rows if row["users"]]
    place = np.arange(len(shown))
    axes.axhline(prior_sd, color=COLOURS[0], lw=1, ls="--", label="prior sd")
    for name, colour, label in (
        ("posterior_sd", ACCENT, "mean posterior sd"),
        ("spread", COLOURS[1], "spread of posterior means"),
    ):
        axes.plot(place, [np.nan if row[name] is None else row[name] for row in shown], "o-", color=colour, label=label)
    axes.set_xticks(place, [f"{row['range']}\n{row['users']:,}" for row in shown])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("requests of the user (faded); users below")
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return svg(figure)


def _text(name: str) -> str:
    """A label: cut short, and not read as mathematics."""
    return (name if len(name) <= 40 else f"{name[:39]}…").replace("$", r"\$")

"""The page about mined preferences, and its section in the report: one HTML file, nothing loaded from elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prectr.preferences_report import pictures
from prectr.preferences_report.overview import MOST_WORDS
from prectr.preferences_report.terminal import interval
from prectr.reporting.drawing import templates

FOLDER = Path(__file__).parent
"""Where the templates are."""
FILTERS = {"interval": interval}


def section(
    parameters: Mapping[str, Any],
    pairs_by_source: Mapping[str, int],
    coverage: Mapping[str, Any] | None = None,
    check: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What `section.html.j2` shows.

    Args:
        parameters: of the artifact's manifest: click curve and examination.
        pairs_by_source: of the artifact's manifest.
        coverage: shares by source, where the relevance artifact is at hand.
        check: of `check_against_truth`, on a simulated log.
    """
    drawn = {
        "examination": pictures.examination_curve(parameters["examination"]["exponent"]),
        "click": pictures.click_curve(**parameters["click"]),
    }
    if check is not None:
        drawn |= {of: pictures.truth_bars(check[of], of) for of in ("users", "queries")}
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
    environment = templates(FOLDER)
    environment.filters |= FILTERS
    return environment.get_template("overview.html.j2").render(
        found=found,
        preferences=section(found["parameters"], found["pairs_by_source"], coverage),
        pictures={
            "categories": pictures.category_tolerances(found["categories"]["rows"]),
            "queries": pictures.query_tolerances(found["head_queries"]),
            "length": pictures.tolerance_by_length(found["by_length"], MOST_WORDS),
            "impressions": pictures.share_bars(found["queries_by_impressions"], "impressions"),
            "users": pictures.share_bars(found["queries_by_users"], "users"),
            "cold": pictures.cold_start(found["users_by_requests"], found["user_prior"]["sd"]),
        },
    )

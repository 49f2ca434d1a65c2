"""preferences show, check: print mined preferences, or compare them with the truth of a simulated log.

It reads artifacts, publishes none and starts no Ray.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import PATH, Answer, Relevance, TablesIn, command
from jobs.options import Preferences as PreferencesIn
from prectr.core import progress
from prectr.core.artifacts import require_artifact, without_nan
from prectr.core.errors import PrectrError, UsageError


@command("preferences show", show=lambda content: Answer(content, show=lambda: print_shown(content)))
def show(
    preferences: PreferencesIn,
    *,
    query: Annotated[str | None, typer.Argument(help="The query to show, in any spelling of its normal form.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with plots of all that was mined.")] = None,
    tables: Annotated[Path | None, typer.Option("--tables", help="Validated tables: adds titles.", **PATH)] = None,
    relevance: Annotated[
        Path | None,
        typer.Option("--relevance", help="Artifact of score-relevance: adds levels and sources.", **PATH),
    ] = None,
) -> dict[str, Any]:
    """Mined preferences: `query` for one query, `overview` for all, and `page`, the path of a written page.

    Args:
        preferences: artifact of mine-preferences.
        query: the query; None: the overview.
        html: file of the page.
        tables: adds titles to the behaviours of a query.
        relevance: adds levels to them, and shares by source to the page.

    Raises:
        UsageError: a path is no such artifact.
        PrectrError: the log does not hold the query, or the page cannot be written.
    """
    from prectr.data.tables import Tables
    from prectr.preferences.mined import Preferences, require_mined_from
    from prectr.reports.preferences import coverage_by_source, overview
    from prectr.reports.preferences_page import render_overview
    from prectr.reports.preferences_query import mined_query

    require_artifact(preferences, "mine-preferences")
    if relevance is not None:
        require_artifact(relevance, "score-relevance")
        require_mined_from(preferences, relevance=relevance)
    opened = Preferences.open(preferences)
    content: dict[str, Any] = {}
    if query is not None:
        content["query"] = mined_query(opened, query, None if tables is None else Tables(tables), relevance)
    if query is None or html is not None:
        content["overview"] = overview(opened)
    if html is not None:
        coverage = None if relevance is None else coverage_by_source(opened, relevance)
        try:
            html.write_text(render_overview(content["overview"], coverage), encoding="utf-8")
        except OSError as error:
            raise PrectrError(f"{html}: the page cannot be written ({error.strerror}).") from None
        progress.say(f"  page written: {html}")
        content["page"] = str(html)
    return dict(without_nan(content))


@command("preferences check", show=lambda content: Answer(content, show=lambda: print_check(content)))
def check(preferences: PreferencesIn, *, relevance: Relevance, tables: TablesIn) -> dict[str, Any]:
    """Mined tolerances against the truth of a simulated log, and the coverage by source.

    Raises:
        UsageError: the log has no truth, or the preferences were not mined from these tables and this relevance.
    """
    from prectr.data.tables import Tables
    from prectr.evaluation.tolerance_check import check_against_truth
    from prectr.preferences.mined import Preferences
    from prectr.reports.preferences import coverage_by_source

    figures = check_against_truth(preferences, relevance, Tables(tables))
    return {**figures, "coverage": coverage_by_source(Preferences.open(preferences), relevance)}


def print_shown(content: Mapping[str, Any]) -> None:
    """Print the preferences of the query, and the path of the page."""
    from prectr.reports.preferences_terminal import print_query

    if "query" not in content and "page" not in content:
        raise UsageError(
            "Name a QUERY to show, or a file for the page about all with --html; --json prints its figures."
        )
    if "query" in content:
        print_query(content["query"])
    if "page" in content:
        print(content["page"])


def print_check(content: Mapping[str, Any]) -> None:
    """Print the result of `check`."""
    from prectr.reports import preferences_terminal as terminal

    terminal.print_check(content)

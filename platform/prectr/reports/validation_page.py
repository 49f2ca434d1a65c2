"""The page of `prectr validate --report`, one self-contained HTML file about a user's log."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prectr.core import progress
from prectr.core.errors import PrectrError
from prectr.data.profile import Profile
from prectr.reports.drawing import ACCENT, axes, svg, templates


def write_validation_page(profile: Profile, source: Path, html: Path) -> None:
    """Write the page: rows, bad rows by reason with examples, values, days, positions, and what looks suspicious.

    Args:
        profile: what a run of `validate` collected.
        source: path of the log, for the heading.
        html: the file to write.

    Raises:
        PrectrError: the page cannot be written.
    """
    page = render(profile.content(), str(source))
    try:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(page, encoding="utf-8")
    except OSError as error:
        raise PrectrError(f"{html}: the page cannot be written ({error.strerror}).") from None
    progress.say(f"  page written: {html}")


def render(content: Mapping[str, Any], source: str) -> str:
    """Render `Profile.content` as HTML."""
    environment = templates()
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["percent"] = lambda share: f"{share:.2%}"
    pictures = {table: days_picture(facts["days"]) for table, facts in content["tables"].items() if facts["days"]}
    return environment.get_template("validation.html.j2").render(facts=content, source=source, pictures=pictures)


def days_picture(days: Mapping[str, int]) -> str:
    """Draw the rows of each day as bars, an SVG."""
    figure, area = axes(width=8.0, height=2.2)
    area.bar(range(len(days)), list(days.values()), color=ACCENT)
    step = max(1, len(days) // 8)
    area.set_xticks(range(0, len(days), step), list(days)[::step], fontsize=8)
    area.set_ylabel("rows")
    return svg(figure)

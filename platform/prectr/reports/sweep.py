"""The page of a sweep: the curve of each trial, and the best metric over each setting."""

from collections.abc import Mapping
from typing import Any

from prectr.reports.drawing import ACCENT, SOFT, axes, svg, templates


def render_sweep(facts: Mapping[str, Any], model: str) -> str:
    """Render the page as HTML.

    Args:
        facts: `trials` (settings, points, best, seconds, error), `best` (one of them) and `metric`.
        model: name of the ranker.
    """
    names = sorted({name for trial in facts["trials"] for name in trial["settings"]})
    done = [trial for trial in facts["trials"] if trial["best"] is not None]
    return (
        templates()
        .get_template("sweep.html.j2")
        .render(
            **facts,
            model=model,
            names=names,
            curves=_curves(facts),
            settings=[(name, _setting(name, done, facts)) for name in names],
        )
    )


def _curves(facts: Mapping[str, Any]) -> str:
    """Draw the metric over steps, one line per trial; the best trial is highlighted."""
    figure, drawn = axes(6.4, 3.2)
    for trial in facts["trials"]:
        best = trial is facts["best"]
        steps = [point["step"] for point in trial["points"]]
        values = [point[facts["metric"]] for point in trial["points"]]
        drawn.plot(steps, values, "o-", color=ACCENT if best else SOFT, lw=1.6 if best else 0.8, ms=3, zorder=2 + best)
    drawn.set_xlabel("step")
    drawn.set_ylabel(facts["metric"])
    return svg(figure)


def _setting(name: str, trials: list[dict[str, Any]], facts: Mapping[str, Any]) -> str:
    """Draw the best metric of each trial over the value of one setting."""
    figure, drawn = axes(3.2, 2.4)
    values = [trial["settings"][name] for trial in trials]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    drawn.scatter(
        values if numbers else [str(value) for value in values], [trial["best"] for trial in trials], s=14, color=ACCENT
    )
    if numbers and min(values) > 0 and max(values) / min(values) > 20:
        drawn.set_xscale("log")
    drawn.set_xlabel(name)
    drawn.set_ylabel(facts["metric"])
    return svg(figure)

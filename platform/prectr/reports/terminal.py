"""Terminal tables of results: evaluation, scored requests, jobs, wall times. This module only formats figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from prectr.contracts.protocol import ScoreResponse

WIDTH = 118
"""Characters of a line if standard output is not a terminal."""
QUALITY_COLUMNS = (
    ("kappa", "quadratic kappa"),
    ("auc", "AUC grade >= 2"),
    ("ndcg_10", "NDCG@10"),
    ("macro_f1", "macro F1"),
    ("rmse", "RMSE"),
)
LEVEL_NAMES = ("irr.", "weak", "rel.", "strong")


def console() -> Console:
    """Create a console for standard output; it is `WIDTH` characters wide if standard output is not a terminal."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=WIDTH)


def print_evaluation(evaluation: Mapping[str, Any]) -> None:
    """Print the tables of models and relevance, and on simulated logs the tolerance table."""
    out = console()
    mark = "simulated log" if evaluation["simulated"] else "logged clicks"
    seeds = f"{evaluation['seeds']} seeds" if evaluation["seeds"] > 1 else "one seed"
    day = f"Test day {evaluation['test_day']}, {evaluation['test_rows']:,} impressions ({mark}), {seeds}"
    out.print(_figure_table(day, evaluation, FIGURE_COLUMNS))
    out.print("  " + reading_help(evaluation), style="dim")
    out.print(_figure_table("By slice", evaluation, SLICE_COLUMNS))
    if any(name in evaluation["figures"] for name in ("candidates", "unexposed")):
        out.print(_figure_table("Lists of candidates, exposed and unexposed", evaluation, LIST_COLUMNS))
    print_quality(evaluation["quality"], evaluation["simulated"])
    if evaluation.get("tolerance"):
        tolerance = Table(title="Mined user tolerance against the truth (simulated)")
        for heading in ("earlier requests", "users", "Spearman"):
            tolerance.add_column(heading, justify="right")
        for row in evaluation["tolerance"]:
            tolerance.add_row(row["requests"], f"{row['users']:,}", _figure(row["spearman"]))
        out.print(tolerance)


FIGURE_COLUMNS = (
    ("all", "auc", "AUC"),
    ("all", "rela_impr", "RelaImpr"),
    ("all", "gauc", "GAUC"),
    ("all", "auc_free", "AUC free"),
    ("all", "gauc_free", "GAUC free"),
)
SLICE_COLUMNS = (
    ("cold", "gauc", "GAUC, cold"),
    ("active", "gauc", "GAUC, active"),
    ("tail", "auc", "AUC, tail"),
    ("randomised", "auc_free", "AUC free, randomised"),
)
LIST_COLUMNS = (
    ("candidates", "level_top", "mean level"),
    ("candidates", "coverage", "coverage"),
    ("candidates", "judged_ndcg", "NDCG, judged"),
    ("unexposed", "level_ndcg", "NDCG of levels, unexposed"),
)
"""Columns (slice, metric, heading) of the terminal's tables; the report has more."""


def figure_rows(evaluation: Mapping[str, Any], columns: Sequence[tuple[str, str, str]]) -> list[list[str]]:
    """Format a table of figures: heading and rows of cells such as `0.7532 ±.0021 =`; empty cells without a figure.

    Args:
        evaluation: the content of an `evaluate` artifact.
        columns: (slice, metric, heading); columns without figures are left out.
    """
    figures = evaluation["figures"]
    available = [
        column
        for column in columns
        if figures.get(column[0], {}).get("auc" if column[1] == "rela_impr" else column[1])
        and (column[1] != "rela_impr" or evaluation["improvement_base"])
    ]
    rows = [["model", *(heading for *_, heading in available)]]
    for name, model in evaluation["models"].items():
        cells = [
            _improvement(figures[part]["auc"].get(name))
            if metric == "rela_impr"
            else format_figure(figures[part][metric].get(name))
            for part, metric, _ in available
        ]
        if any(cells):
            rows.append([model["label"], *cells])
    return rows


def format_figure(figure: Mapping[str, Any] | None) -> str:
    """Format value, half of its interval, and a mark: ▲ better than the base, ▼ worse, = no difference shown."""
    if figure is None or not _is_defined(figure["value"]):
        return format_interval(figure)
    mark = {"better": " ▲", "worse": " ▼", "no difference": " ="}
    return format_interval(figure) + (
        "" if figure["difference"] is None else mark.get(figure["difference"]["verdict"], "")
    )


def format_interval(figure: Mapping[str, Any] | None) -> str:
    """Format value and half of its interval; a dash if the value is not defined, an empty text without a figure."""
    if figure is None:
        return ""
    if not _is_defined(figure["value"]):
        return "–"
    half = None if not _is_defined(figure["low"]) else (figure["high"] - figure["low"]) / 2
    return f"{figure['value']:.4f}" + ("" if half is None else " ±" + f"{half:.4f}".lstrip("0"))


def _improvement(figure: Mapping[str, Any] | None) -> str:
    improvement = None if figure is None else figure.get("rela_impr")
    return "" if improvement is None or not _is_defined(improvement["value"]) else f"{improvement['value']:+.2f} %"


def _figure_table(title: str, evaluation: Mapping[str, Any], columns: Sequence[tuple[str, str, str]]) -> Table:
    heading, *rows = figure_rows(evaluation, columns)
    table = Table(title=title)
    for number, name in enumerate(heading):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def reading_help(evaluation: Mapping[str, Any]) -> str:
    """Explanation of the cells of `figure_rows`."""
    settings, base = evaluation["settings"], evaluation["models"][evaluation["base"]]["label"]
    seeds = (
        "other users and other seeds"
        if evaluation["seeds"] > 1
        else "other users only: one seed, so another training may differ by more"
    )
    return (
        f"± half of the {settings['level']:.0%} interval: {seeds}. Against {base} on the same users: ▲ better, ▼ "
        "worse, = no difference shown. AUC, GAUC: score at the logged position; free: position-free, as served. cold: "
        f"at most {settings['cold_requests']} earlier requests. {_of_marks(evaluation)}".rstrip()
    )


def _of_marks(evaluation: Mapping[str, Any]) -> str:
    differences = [
        figure["difference"]
        for metrics in evaluation["figures"].values()
        for models in metrics.values()
        for figure in models.values()
    ]
    count = sum(difference is not None and difference["verdict"] != "undefined" for difference in differences)
    return multiplicity("Marks", "models", count, evaluation["settings"]["level"])


def multiplicity(marks: str, compared: str, count: int, level: float) -> str:
    """Sentence on verdicts that are not corrected for their number; empty for less than two.

    Args:
        marks: what the verdicts are called, in the plural and as the first word.
        compared: what is compared, in the plural.
        count: number of verdicts.
        level: confidence level of the intervals.
    """
    from prectr.metrics.comparison import (
        corrected_widening,  # SciPy is slow to import, and other tables need none of it
    )

    if count < 2:
        return ""
    return (
        f"{marks} are not corrected for multiplicity: if no two {compared} differed, about "
        f"{count * (1 - level):.0f} of the {count} comparisons would show a difference by chance. Corrected for all of "
        f"them (Bonferroni), intervals of differences would be {corrected_widening(count, level):.2f} times as wide."
    )


def print_quality(quality: Mapping[str, Any], simulated: bool) -> None:
    """Print the figures of teacher, student and lexical baseline on held-back judged queries."""
    mark = ", simulated" if simulated else ""
    table = Table(
        title=f"Relevance on {quality['queries']:,} held-back judged queries, {quality['pairs']:,} pairs "
        f"(grades 0-3: {', '.join(f'{count:,}' for count in quality['grades'])}{mark})"
    )
    table.add_column("model")
    for _, heading in QUALITY_COLUMNS:
        table.add_column(heading, justify="right")
    for name, heading in (("teacher", "teacher"), ("student", "student encoder"), ("lexical", "TF-IDF + isotonic")):
        if name in quality:
            table.add_row(heading, *(_figure(quality[name][column]) for column, _ in QUALITY_COLUMNS))
    out = console()
    out.print(table)
    if "lexical" in quality:
        out.print(
            "  " + "; ".join(_against_lexical(quality, name) for name in ("teacher", "student") if name in quality)
        )


def _against_lexical(quality: Mapping[str, Any], name: str) -> str:
    """Sentence with the figures on which a model beats the lexical baseline; a smaller RMSE is better."""
    better = []
    for column, heading in QUALITY_COLUMNS:
        value, base = quality[name][column], quality["lexical"][column]
        if value is not None and base is not None and (value < base if column == "rmse" else value > base):
            better.append(heading)
    verdict = "on all figures" if len(better) == len(QUALITY_COLUMNS) else f"on {', '.join(better) or 'no figure'}"
    return f"{name} beats the lexical baseline {verdict}"


def print_scored(title: str, response: ScoreResponse, limit: int = 8) -> None:
    """Print one scored request: level probabilities, click probability, tau and the final order."""
    user, query = response.user_tolerance, response.query_tolerance
    table = Table(
        title=title,
        caption=f"{response.earlier_requests} earlier requests; tolerance of the user {user.mean:.2f} ± "
        f"{user.deviation:.2f}, of the query {query.mean:.2f} ± {query.deviation:.2f} (0..1, lower accepts more)",
    )
    table.add_column("rank", justify="right")
    table.add_column("item", max_width=44, no_wrap=True)
    for name in LEVEL_NAMES:
        table.add_column(name, justify="right")
    table.add_column("source")
    table.add_column("click", justify="right")
    table.add_column("tau", justify="right")
    for result in response.results[:limit]:
        table.add_row(
            str(result.rank),
            result.title,
            *(f"{value:.2f}" for value in result.level_probabilities),
            result.relevance_source,
            f"{result.click_probability:.4f}",
            f"{result.tau:+.3f}",
        )
    console().print(table)


def print_jobs(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the jobs of a cluster."""
    table = Table("job", "command", "status", "seconds")
    for row in rows:
        table.add_row(
            row["job"], row["command"], row["status"], "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        )
    console().print(table)


def print_wall_times(stages: Sequence[tuple[str, float, bool]], total: float) -> None:
    """Print the wall times of stages, (stage, seconds, skipped), and their total."""
    table = Table(title="Wall time")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for name, seconds, skipped in stages:
        table.add_row(name, f"{seconds:.1f}" + (" (skipped)" if skipped else ""))
    table.add_section()
    table.add_row("total", f"{total:.1f}")
    console().print(table)


def _is_defined(value: float | None) -> bool:
    return value is not None and value == value


def _figure(value: float | None) -> str:
    return f"{value:.4f}" if _is_defined(value) else "-"

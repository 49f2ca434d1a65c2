"""Results as tables in the terminal: evaluation, scored requests, wall times. Printing only, no computing."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from prectr.protocol import ScoreResponse

WIDTH = 118
MODEL_NAMES = {
    "position-only": "position only",
    "lr": "LR",
    "dnn": "DNN",
    "wide-deep": "Wide&Deep",
    "deepfm": "DeepFM",
    "xdeepfm": "xDeepFM",
    "din": "DIN",
    "sukd": "SuKD",
    "daian": "DAIAN (search)",
    "prectr": "PRECTR",
    "prectr-v2": "PRECTR-V2",
    "oracle": "oracle (truth)",
}
QUALITY_COLUMNS = (
    ("kappa", "quadratic kappa"),
    ("auc", "AUC grade >= 2"),
    ("ndcg_10", "NDCG@10"),
    ("macro_f1", "macro F1"),
    ("rmse", "RMSE"),
)
LEVEL_NAMES = ("irr.", "weak", "rel.", "strong")


def console() -> Console:
    """Standard output; as wide as the tables need where it is not a terminal."""
    found = Console()
    return found if found.is_terminal else Console(width=WIDTH)


def print_evaluation(evaluation: Mapping[str, Any]) -> None:
    """The model table, the relevance table and, where there is a truth, the tolerance table."""
    out = console()
    mark = "simulated log" if evaluation["simulated"] else "logged clicks"
    models = evaluation["models"]
    cold = evaluation["cold_requests"]
    table = Table(title=f"Test day {evaluation['test_day']}, {evaluation['test_rows']:,} impressions ({mark})")
    table.add_column("model")
    for heading in ("AUC", "GAUC", "RelaImpr", "AUC free", "GAUC free", "cold AUC", "cold GAUC", "cold AUC free"):
        table.add_column(heading, justify="right")
    for name, slices in models.items():
        everyone, few = slices["all"], slices["cold"]
        improvement = everyone.get("rela_impr")
        table.add_row(
            MODEL_NAMES.get(name, name),
            _figure(everyone["auc"]),
            _figure(everyone["gauc"]),
            "" if improvement is None else f"{improvement:+.2f} %",
            _figure(everyone["auc_free"]),
            _figure(everyone["gauc_free"]),
            _figure(few["auc"]),
            _figure(few["gauc"]),
            _figure(few["auc_free"]),
        )
    out.print(table)
    first = next(iter(models.values()))
    out.print(
        f"  AUC, GAUC: score at the logged position; free: position-free, as served. cold: users with at most {cold} "
        f"earlier requests ({first['cold']['rows']:,} impressions, {first['cold']['clicks']:,} clicks). "
        f"One run, one seed: differences of a few thousandths are noise.",
        style="dim",
    )
    print_quality(evaluation["quality"], evaluation["simulated"])
    if evaluation.get("tolerance"):
        tolerance = Table(title="Mined user tolerance against the truth (simulated)")
        for heading in ("earlier requests", "users", "Spearman"):
            tolerance.add_column(heading, justify="right")
        for row in evaluation["tolerance"]:
            tolerance.add_row(row["requests"], f"{row['users']:,}", _figure(row["spearman"]))
        out.print(tolerance)


def print_quality(quality: Mapping[str, Any], simulated: bool) -> None:
    """Teacher, student and lexical baseline on held-back judged queries."""
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
    """On which figures a model beats the lexical baseline; RMSE is better when smaller."""
    better = []
    for column, heading in QUALITY_COLUMNS:
        value, base = quality[name][column], quality["lexical"][column]
        if value is not None and base is not None and (value < base if column == "rmse" else value > base):
            better.append(heading)
    verdict = "on all figures" if len(better) == len(QUALITY_COLUMNS) else f"on {', '.join(better) or 'no figure'}"
    return f"{name} beats the lexical baseline {verdict}"


def print_scored(title: str, response: ScoreResponse, limit: int = 8) -> None:
    """One scored request: level probabilities, click probability, incentive and the final order."""
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
    table.add_column("incentive", justify="right")
    for result in response.results[:limit]:
        table.add_row(
            str(result.rank),
            result.title,
            *(f"{value:.2f}" for value in result.level_probabilities),
            result.relevance_source,
            f"{result.click_probability:.4f}",
            f"{result.incentive:+.3f}",
        )
    console().print(table)


def print_wall_times(stages: Sequence[tuple[str, float, bool]], total: float) -> None:
    """(stage, seconds, skipped) rows and the total."""
    table = Table(title="Wall time")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for name, seconds, skipped in stages:
        table.add_row(name, f"{seconds:.1f}" + (" (skipped)" if skipped else ""))
    table.add_section()
    table.add_row("total", f"{total:.1f}")
    console().print(table)


def _figure(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4f}"

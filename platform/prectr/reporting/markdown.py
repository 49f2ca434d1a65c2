"""The report's tables as Markdown, for a wiki or a pull request."""

from collections.abc import Sequence

from prectr.reporting.content import ABLATED, Report, verdicts
from prectr.tabulate import QUALITY_COLUMNS, reading_help


def render_markdown(report: Report) -> str:
    """The report without its pictures."""
    evaluation = report.evaluation
    simulated = " Simulated log: clicks come from a model of users." if evaluation["simulated"] else ""
    seeds = evaluation["seeds"]
    lines = [
        "# PRECTR-V2 on Ray: report",
        "",
        f"Test day {evaluation['test_day']}, {evaluation['test_rows']:,} impressions, "
        f"{seeds} seed{'s' * (seeds > 1)}.{simulated}",
        "",
        reading_help(evaluation),
    ]
    for table in report.tables():
        lines += ["", f"## {table.title}", "", *_table(table.heading, table.rows)]
        if table.title == f"{ABLATED}Rankers" and report.ablation is not None:
            lines += ["", reading_help(report.ablation)]
    if (off_policy := report.off_policy()) is not None:
        lines += ["", f"## {off_policy.title}", "", evaluation["off_policy"]["what"], ""]
        lines += _table(off_policy.heading, off_policy.rows)
    lines += ["", "## Verdicts", "", *(f"- {sentence}" for sentence in verdicts(evaluation))]
    quality = evaluation["quality"]
    if "lexical" in quality:
        rows = [
            [
                name,
                *(
                    "–" if quality[name][column] is None else f"{quality[name][column]:.4f}"
                    for column, _ in QUALITY_COLUMNS
                ),
            ]
            for name in ("teacher", "student", "lexical")
            if name in quality
        ]
        lines += ["", f"## Relevance, {quality['pairs']:,} held-back judged pairs", ""]
        lines += _table(["model", *(heading for _, heading in QUALITY_COLUMNS)], rows)
    lines += ["", "## Wall time and cost", "", *_table(report.cost_heading(), report.cost())]
    lines += ["", "## Slices", ""]
    lines += [f"- **{name}**: {one['what']} ({one['rows']:,} rows)" for name, one in evaluation["slices"].items()]
    lines += ["", "## Definitions", ""]
    lines += [f"- **{one['heading']}**: {one['definition']}" for one in evaluation["definitions"].values()]
    if report.identities:
        lines += ["", "## Identities", "", "Hash of stage, version, configuration and inputs of each artifact:", ""]
        lines += [f"- {name}: `{identity}`" for name, identity in report.identities.items()]
    return "\n".join(lines) + "\n"


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(heading) + " |",
        "|---" * len(heading) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]

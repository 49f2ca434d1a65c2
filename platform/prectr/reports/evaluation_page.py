"""The evaluation report of a workspace as one self-contained HTML page, and as Markdown."""

from collections.abc import Sequence

from prectr.reports import evaluation_pictures as pictures
from prectr.reports import preferences_page
from prectr.reports.drawing import templates
from prectr.reports.evaluation import ABLATION_PREFIX, Report, verdicts
from prectr.reports.terminal import QUALITY_COLUMNS, reading_help

OVERALL = (("all", "auc", "AUC"), ("all", "gauc", "GAUC"), ("all", "auc_free", "AUC, position-free"))
BY_ACTIVITY = (("cold", "gauc", "GAUC, cold"), ("warm", "gauc", "GAUC, warm"), ("active", "gauc", "GAUC, active"))
BY_QUERY = (("head", "auc", "AUC, head"), ("torso", "auc", "AUC, torso"), ("tail", "auc", "AUC, tail"))
BY_LIST = (
    ("randomised", "auc_free", "AUC free, randomised"),
    ("unexposed", "level_ndcg", "NDCG of levels, unexposed"),
    ("candidates", "coverage", "coverage"),
)


def render_page(report: Report) -> str:
    """Render the report as HTML."""
    evaluation, ablation = report.evaluation, report.ablation
    svgs = {
        "overall": pictures.differences(evaluation, OVERALL),
        "activity": pictures.differences(evaluation, BY_ACTIVITY),
        "queries": pictures.differences(evaluation, BY_QUERY),
        "lists": pictures.differences(evaluation, BY_LIST),
        "ablation": None if ablation is None else pictures.differences(ablation, OVERALL),
        "ablation_activity": None if ablation is None else pictures.differences(ablation, (*BY_ACTIVITY[:1], *BY_LIST)),
        "calibration": pictures.calibration_curves(evaluation),
        "incentive": pictures.incentive_curves(evaluation),
        "position": pictures.position_curves(evaluation),
        "curves": pictures.learning_curves(report.curves, report.learning_labels()) if report.curves else None,
        "quality": pictures.quality_bars(evaluation["quality"]) if "lexical" in evaluation["quality"] else None,
        "stages": pictures.stage_bars(report.times) if report.times else None,
    }
    environment = templates()
    environment.filters |= preferences_page.FILTERS
    return environment.get_template("evaluation.html.j2").render(
        report=report,
        evaluation=evaluation,
        ablation=ablation,
        tables={table.title: table for table in report.tables()},
        off_policy=report.off_policy(),
        help=reading_help(evaluation),
        ablation_help=None if ablation is None else reading_help(ablation),
        ablation_prefix=ABLATION_PREFIX,
        verdicts=verdicts(evaluation),
        quality_columns=QUALITY_COLUMNS,
        pictures=svgs,
        preferences=None
        if report.mined is None
        else preferences_page.section(
            report.mined["parameters"], report.mined["relevance_sources"], report.coverage, report.check
        ),
    )


def render_markdown(report: Report) -> str:
    """Render the report as Markdown, without pictures."""
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
        if table.title == f"{ABLATION_PREFIX}Rankers" and report.ablation is not None:
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
    lines += [f"- **{name}**: {part['what']} ({part['rows']:,} rows)" for name, part in evaluation["slices"].items()]
    lines += ["", "## Definitions", ""]
    lines += [f"- **{metric['heading']}**: {metric['definition']}" for metric in evaluation["definitions"].values()]
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

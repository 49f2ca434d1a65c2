"""The report page: what a workspace's artifacts say, on one self-contained HTML page."""

from pathlib import Path

from prectr.preferences_report import page as preferences_page
from prectr.reporting import pictures
from prectr.reporting.content import ABLATED, Report, verdicts
from prectr.reporting.drawing import templates
from prectr.tabulate import QUALITY_COLUMNS, reading_help

OVERALL = (("all", "auc", "AUC"), ("all", "gauc", "GAUC"), ("all", "auc_free", "AUC, position-free"))
BY_ACTIVITY = (("cold", "gauc", "GAUC, cold"), ("warm", "gauc", "GAUC, warm"), ("active", "gauc", "GAUC, active"))
BY_QUERY = (("head", "auc", "AUC, head"), ("torso", "auc", "AUC, torso"), ("tail", "auc", "AUC, tail"))
BY_LIST = (
    ("randomised", "auc_free", "AUC free, randomised"),
    ("unexposed", "level_ndcg", "NDCG of levels, unexposed"),
    ("candidates", "coverage", "coverage"),
)


def render_page(report: Report) -> str:
    """The page as HTML."""
    evaluation, ablation = report.evaluation, report.ablation
    drawn = {
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
    environment = templates(Path(__file__).parent, preferences_page.FOLDER)
    environment.filters |= preferences_page.FILTERS
    return environment.get_template("page.html.j2").render(
        report=report,
        evaluation=evaluation,
        ablation=ablation,
        tables={table.title: table for table in report.tables()},
        off_policy=report.off_policy(),
        help=reading_help(evaluation),
        ablation_help=None if ablation is None else reading_help(ablation),
        ablated=ABLATED,
        verdicts=verdicts(evaluation),
        quality_columns=QUALITY_COLUMNS,
        pictures=drawn,
        preferences=None
        if report.mined is None
        else preferences_page.section(
            report.mined["parameters"], report.mined["relevance_sources"], report.coverage, report.check
        ),
    )

"""The summary of `quality.py` as Markdown tables: what docs/training.md shows.

.venv/bin/python tests/benchmarks/_quality_tables.py tests/benchmarks/results/quality-medium.json
"""

import json
import sys
from pathlib import Path
from typing import Any

from _quality_variants import GROUPS

from prectr.reports.terminal import multiplicity

STUDENT = tuple(
    f"student.{slice}_{figure}"
    for slice in ("unexposed", "shown")
    for figure in (
        "correlation",
        "above_lexical",
        "above_lexical_error",
        "mean",
        "mean_above_truth",
        "mean_above_truth_error",
    )
)
COLUMNS = {
    "table": (
        "all.auc",
        "all.gauc",
        "all.truth_free",
        "cold.gauc",
        "cold.truth_free",
        "explore.auc_free",
        "candidates.ndcg_click",
        "candidates.unexposed_spearman",
    ),
    "ablations": (
        "all.auc",
        "all.truth_free",
        "cold.truth_free",
        "explore.auc_free",
        "candidates.unexposed_spearman",
        "judged.auc",
    ),
    "mining": (
        "all.auc",
        "all.truth_free",
        "cold.truth_free",
        "active.truth_free",
        "explore.auc_free",
        "candidates.unexposed_spearman",
    ),
    "debias": ("all.auc", "all.truth_free", "candidates.unexposed_spearman", "candidates.ndcg_click", "ece"),
}
COLUMNS |= dict.fromkeys(("placebo", "catalogue", "student"), COLUMNS["table"])
COLUMNS |= dict.fromkeys(("relevance", "levels"), (*COLUMNS["ablations"], "candidates.ndcg_click"))
COLUMNS["parts"] = (*COLUMNS["table"], "logloss")
TOLERANCE = tuple(
    tuple(f"{figure}.{bucket}" for bucket in ("0-3", "4-9", "10-29", "30+"))
    for figure in ("tolerance", "tolerance_if", "threshold_if")
)
SAMPLING = ("all.gauc_error", "cold.gauc_error")
CALIBRATION = ("ece", "predicted_over_actual", "candidates.unexposed_mean_ratio")


def main() -> None:
    """Print a table a group, then tolerance and calibration."""
    summary = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    told = {name: entry for name, entry in summary["variants"].items() if entry["seeds"]}
    for group, variants in GROUPS.items():
        names = [
            variant.name
            for variant in variants
            if variant.name in told and COLUMNS[group][0] in told[variant.name]["mean"]
        ]
        if names:
            print(f"\n**{group}**\n")
            _table(told, names, COLUMNS[group])
    if names := _with_figure(told, STUDENT[0], "student", "catalogue"):
        print("\n**the student's expected level beside the true relevance, on pairs that only it knows**\n")
        _table(told, names, STUDENT)
    gaps = [gap for entry in told.values() for gap in entry["gaps"].values() if gap["real"] is not None]
    print(f"\n{multiplicity('Bold gaps', 'variants', len(gaps), 0.95)}")
    errors = {figure: told["oracle"]["mean"][figure] for figure in SAMPLING}
    print(f"\nstandard error of the oracle's GAUC over the users of the one test day: {errors}")
    print("\n**the ladder: gap ± its standard error, paired by seed**\n")
    _ladder([step for step in summary["ladder"] if step["gaps"]])
    for columns in TOLERANCE:
        if names := _with_figure(told, columns[0], "table", "ablations", "mining"):
            print("\n**implied tolerance against the true one, by the user's earlier requests**\n")
            _table(told, names, columns)
    print("\n**calibration**\n")
    _table(told, _with_figure(told, CALIBRATION[0], "table", "ablations", "mining", "debias"), CALIBRATION)
    print(f"\nclosed of the gap from Wide&Deep: {summary['closed']} to the truth, "
          f"{summary['closed_of_knowable']} to the observer")  # fmt: skip


def _with_figure(told: dict[str, Any], figure: str, *groups: str) -> list[str]:
    names = [variant.name for group in groups for variant in GROUPS[group]]
    return [name for name in names if name in told and figure in told[name]["mean"]]


def _table(told: dict[str, Any], names: list[str], columns: tuple[str, ...]) -> None:
    print("| variant | seeds | " + " | ".join(columns) + " | compared with |")
    print("|---|---|" + "---|" * (len(columns) + 1))
    for name in names:
        entry = told[name]
        cells = [_cell(entry, column) for column in columns]
        print(f"| {name} | {entry['seeds']} | " + " | ".join(cells) + f" | {entry['against'] or ''} |")


def _ladder(steps: list[dict[str, Any]]) -> None:
    columns = COLUMNS["table"]
    print("| variant | minus | " + " | ".join(columns) + " |")
    print("|---|---|" + "---|" * len(columns))
    for step in steps:
        cells = [_gap_cell(step["gaps"].get(column)) for column in columns]
        print(f"| {step['variant']} | {step['against']} | " + " | ".join(cells) + " |")


def _gap_cell(gap: dict[str, Any] | None) -> str:
    """A paired gap and its standard error, which one seed has not: bold where it exceeds 2 errors."""
    if gap is None:
        return ""
    error = gap["standard_error"]
    cell = f"{gap['mean']:+.5f}" + ("" if error is None else f" ±{error:.5f}")
    return f"**{cell}**" if gap["real"] else cell


def _cell(entry: dict[str, Any], column: str) -> str:
    """Mean, spread over seeds, and the paired gap to what it is compared with: bold where it exceeds 2 errors."""
    if column not in entry["mean"]:
        return ""
    deviation, gap = entry["deviation"].get(column), entry["gaps"].get(column)
    cell = f"{entry['mean'][column]:.4f}" + ("" if deviation is None else f" ±{deviation:.4f}")
    if gap is None:
        return cell
    change = f"{gap['mean']:+.4f}"
    return f"{cell} ({f'**{change}**' if gap['real'] else change})"


if __name__ == "__main__":
    main()

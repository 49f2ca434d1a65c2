"""The report of an experiment as tables, in the terminal and as Markdown. This module only formats figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from prectr.reports.terminal import console, multiplicity

HEADINGS = ("measure", "control", "treatment", "difference", "lift", "p", "verdict, one look")
ALWAYS_VALID_HEADINGS = ("measure", "with CUPED", "variance", "verdict", "always valid", "verdict at any time")
TRUTH_HEADINGS = ("measure", "estimate", "truth", "true lift", "truth inside", "with CUPED", "any time")
DAY_HEADINGS = ("day", "users", "difference in CTR", "fixed", "always valid")


def print_experiment(report: Mapping[str, Any]) -> None:
    """Print the report of an experiment, the sample ratio first."""
    out = console()
    for line in _heading(report):
        out.print(line)
    for title, headings, rows in _tables(report):
        table = Table(title=title)
        for number, heading in enumerate(headings):
            table.add_column(heading, justify="left" if not number else "right")
        for row in rows:
            table.add_row(*row)
        out.print(table)
    for line in _notes(report):
        out.print(line, style="dim")


def markdown(report: Mapping[str, Any]) -> str:
    """Render the report of an experiment as Markdown."""
    parts = ["# Experiment", *_heading(report)]
    for title, headings, rows in _tables(report):
        lines = ["| " + " | ".join(row) + " |" for row in (headings, ["---"] * len(headings), *rows)]
        parts += [f"## {title}", "\n".join(lines)]
    return "\n\n".join([*parts, *_notes(report)]) + "\n"


def _heading(report: Mapping[str, Any]) -> list[str]:
    ratio = report["sample_ratio"]
    users = ", ".join(
        f"{name} {count:,} ({count / max(sum(ratio['observed']), 1):.2%}, intended {share:.2%})"
        for name, count, share in zip(report["variants"], ratio["observed"], ratio["intended"])
    )
    if ratio["ok"]:
        sentence = f"Sample ratio: as intended (p = {_probability(ratio['p_value'])})."
    else:
        sentence = (
            f"SAMPLE RATIO MISMATCH (p = {_probability(ratio['p_value'])}, below {ratio['limit']:g}): users were lost "
            "or sorted between assignment and log. No verdict is given; find the cause first."
        )
    return [f"Users: {users}", sentence]


def _tables(report: Mapping[str, Any]) -> list[tuple[str, Sequence[str], list[list[str]]]]:
    mark = ", simulated" if report["simulated"] else ""
    level = f"{report['level']:.0%} intervals"
    tables: list[tuple[str, Sequence[str], list[list[str]]]] = []
    for treatment in report["variants"][1:]:
        plain, always_valid = [], []
        for measure in report["measures"].values():
            comparison = measure["treatments"][treatment]
            values = measure["values"]
            bootstrap = comparison["bootstrap"]
            reach = f"± {_number(_reach(comparison['delta']))}" if bootstrap is None else _interval(bootstrap)
            plain.append(
                [
                    measure["title"],
                    _number(values[report["control"]]["value"]),
                    _number(values[treatment]["value"]),
                    f"{_signed(comparison['difference'])} {reach}",
                    f"{_percent(comparison['lift']['value'])} ± {_share(_reach(comparison['lift']))}",
                    _probability(comparison["p_value"]),
                    comparison["verdict"],
                ]
            )
            adjusted, valid = comparison["adjusted"], comparison["always_valid"]
            with_cuped = ["-", "-", "-"]
            if adjusted is not None:
                with_cuped = [
                    f"{_signed(adjusted['difference'])} ± {_number(_reach(adjusted))}",
                    f"{-adjusted['variance_reduction']:+.0%}",
                    adjusted["verdict"],
                ]
            always_valid.append([measure["title"], *with_cuped, f"± {_number(_reach(valid))}", valid["verdict"]])
        days = f"{report['first_day']} to {report['last_day']}"
        title = f"{treatment} against {report['control']}, {days} ({level}{mark})"
        tables += [
            (title, HEADINGS, plain),
            (f"{treatment}: with CUPED, and always-valid bounds", ALWAYS_VALID_HEADINGS, always_valid),
        ]
        if "ctr" in report["measures"]:
            tables.append((f"{treatment}: a look every day", DAY_HEADINGS, _days(report, treatment)))
    if report.get("truth"):
        tables.append(_truth(report))
    if report["resplits"] is not None:
        tables.append(_resplit(report))
    return tables


def _days(report: Mapping[str, Any], treatment: str) -> list[list[str]]:
    rows = []
    for day in report["days"]:
        difference = day["measures"]["ctr"][treatment]
        reaches = [f"± {_number(difference[name])}" for name in ("fixed_reach", "always_valid_reach")]
        rows.append([day["day"], f"{day['users']:,}", _signed(difference["difference"]), *reaches])
    return rows


def _truth(report: Mapping[str, Any]) -> tuple[str, Sequence[str], list[list[str]]]:
    rows = []
    for name, truth in report["truth"].items():
        measure = report["measures"][name]
        estimate = measure["treatments"]["treatment"]
        covered = [
            {True: "yes", False: "no", None: "-"}[truth["covered"].get(kind)]
            for kind in ("fixed", "adjusted", "always_valid")
        ]
        cell = f"{_signed(estimate['difference'])}, {estimate['verdict']}"
        rows.append([measure["title"], cell, _signed(truth["difference"]), _percent(truth["lift"]), *covered])
    control, treatment = (ranker.rstrip("/").rsplit("/", 1)[-1] for ranker in report["rankers"])
    return f"{treatment} against {control}: the online test and the truth (simulated)", TRUTH_HEADINGS, rows


def _resplit(report: Mapping[str, Any]) -> tuple[str, Sequence[str], list[list[str]]]:
    resplits = report["resplits"]
    expected = f"{resplits['expected']:.1%} ± {resplits['binomial_reach']:.1%}"
    rows = [
        [
            report["measures"][name]["title"],
            f"{rates['by_users']:.1%}",
            "-" if rates["by_rows"] is None else f"{rates['by_rows']:.1%}",
            expected,
        ]
        for name, rates in resplits["measures"].items()
    ]
    title = f"False positives in {resplits['splits']:,} random re-assignments of these users (A/A)"
    return title, ("measure", "users as units", "rows as units", "expected"), rows


def _notes(report: Mapping[str, Any]) -> list[str]:
    counts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in report["counts"].items())
    definitions = "; ".join(f"{measure['title']}: {measure['definition']}" for measure in report["measures"].values())
    notes = [
        f"{definitions}. Amounts: bootstrap interval by user, others: delta method. The always-valid bounds lie "
        "around the difference with CUPED, if there is one.",
        f"Counted: {counts}.",
    ]
    given = [
        comparison["verdict"]
        for measure in report["measures"].values()
        for comparison in measure["treatments"].values()
        if comparison["verdict"] not in ("undefined", "withheld")
    ]
    if sentence := multiplicity("Verdicts", "variants", len(given), report["level"]):
        notes.append(sentence)
    if not report["cuped"]:
        notes.append("No rows from before the experiment were used, so there is no CUPED.")
    return notes


def _number(value: float | None) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:.5f}" if abs(value) < 1 else f"{value:,.3f}"


def _signed(value: float | None) -> str:
    shown = _number(value)
    return shown if shown == "-" or shown.startswith("-") else f"+{shown}"


def _percent(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:+.1%}"


def _probability(value: float | None) -> str:
    if value is None or value != value:
        return "-"
    return "<0.0001" if value < 1e-4 else f"{value:.4f}"


def _share(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.1%}"


def _reach(interval: Mapping[str, Any]) -> float | None:
    """Half the width of an interval."""
    low, high = interval["low"], interval["high"]
    return None if low is None or high is None else (high - low) / 2


def _interval(interval: Mapping[str, Any]) -> str:
    return f"[{_signed(interval['low'])}, {_signed(interval['high'])}]"

"""Terminal tables of one query's mined preferences and of the check against the truth. It only formats figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from prectr.evaluation.tolerance_check import ESTIMATES
from prectr.preferences.counting import QUANTILE_NAMES
from prectr.reports.terminal import LEVEL_NAMES, console

BAR = 40
"""Characters of the longest bar."""
_EIGHTHS = " ▏▎▍▌▋▊▉"
BEHAVIOURS_SHOWN = 10
"""Most behaviours in the table."""


def print_query(mined: Mapping[str, Any]) -> None:
    """Print levels, tolerance, prices and behaviours of a query, with two bar charts."""
    out = console()
    half_life = mined["half_life_days"]
    fading = "counts do not fade" if half_life is None else f"counts fade by half in {half_life:g} days"
    out.print(Text(mined["query"], style="bold"), Text(f"  {mined['category'] or 'category unknown'}"))
    out.print(
        f"  {mined['users']:,.0f} users, {mined['impressions']:,.1f} impressions, {mined['clicks']:,.1f} clicks "
        f"up to {mined['last_day']}; {fading} (except users)",
        style="dim",
    )
    out.print(_levels(mined["levels"]))
    out.print("Share of clicks by relevance level")
    _print_bars([(level["name"], level["click_share"]) for level in mined["levels"]])
    out.print(_tolerances(mined))
    tolerance = mined["tolerance"]
    out.print("Posterior of the tolerance: the relevance (0..1) below which results are not accepted")
    likely = [index for index, share in enumerate(tolerance["posterior"]) if share >= 0.005]
    _print_bars(
        [
            (f"{tolerance['grid'][index]:.2f}", tolerance["posterior"][index])
            for index in range(likely[0], likely[-1] + 1)
        ]
    )
    if any(price is not None for price in mined["prices"]["query"].values()):
        out.print(_prices(mined["prices"]))
    if mined["behaviours"]:
        out.print(_behaviours(mined["behaviours"]))


def print_check(check: Mapping[str, Any]) -> None:
    """Print the comparison of mined tolerances with the truth."""
    out = console()
    for side in ("users", "queries"):
        figures = check[side]
        table = Table(title=f"Tolerance of {side} against the truth: Spearman correlation (simulated log)")
        table.add_column(figures["by"])
        for heading in (side, "without a click", "posterior", "naive", "ceiling"):
            table.add_column(heading, justify="right")
        for number, (population, mark) in enumerate((("all", ""), ("with_a_click", ", clicked"))):
            if number:
                table.add_section()
            for row in figures[population]:
                table.add_row(
                    f"{row[figures['by']]}{mark}",
                    f"{row['keys']:,}",
                    f"{row['without_click']:,}",
                    *(interval(row[name]) for name in ESTIMATES),
                )
        out.print(table)
    out.print(
        "  naive: mean relevance clicked minus shown, 0 without a click; ceiling: the posterior if all else is known.\n"
        f"  [] is the interval: {check['interval']}. A dash: too few, all equal (a placebo log), or no truth.",
        style="dim",
        markup=False,
    )
    print_coverage(check["coverage"])


def print_coverage(coverage: Mapping[str, Mapping[str, float]]) -> None:
    """Print the shares of pairs and impressions by source of relevance."""
    table = Table(title="Coverage by source of relevance")
    for heading in ("source", "pairs", "impressions"):
        table.add_column(heading, justify="left" if heading == "source" else "right")
    for source, shares in coverage.items():
        table.add_row(source, f"{shares['pairs']:.1%}", f"{shares['impressions']:.1%}")
    console().print(table)


def interval(figure: Mapping[str, float | None]) -> str:
    """Format a correlation with its interval; a dash if it is not defined."""
    if figure["spearman"] is None:
        return "-"
    return f"{figure['spearman']:.3f} [{figure['low']:.2f}, {figure['high']:.2f}]"


def bar(share: float, longest: float) -> str:
    """Draw a bar of at most BAR characters, rounded to an eighth of a character."""
    eighths = round(share / longest * BAR * 8) if longest > 0 else 0
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _print_bars(rows: Sequence[tuple[str, float]]) -> None:
    longest = max(share for _, share in rows)
    out = console()
    for name, share in rows:
        out.print(Text(f"  {name:>6} {share:6.1%} "), Text(bar(share, longest), style="cyan"), sep="")


def _levels(levels: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(
        caption="examined: impressions debiased for position; clicks 1/exam: each weighted by inverse examination; "
        "rate: clicks per examined impression, smoothed; own: weight of the query's own rows in the rate"
    )
    table.add_column("level")
    headings = ("impressions", "clicks", "CTR", "examined", "clicks 1/exam", "rate", "own", "share of clicks")
    for heading in headings:
        table.add_column(heading, justify="right")
    for level in levels:
        table.add_row(
            f"{level['level']} {level['name']}",
            f"{level['impressions']:,.1f}",
            f"{level['clicks']:,.1f}",
            "-" if level["ctr"] is None else f"{level['ctr']:.2%}",
            f"{level['examined']:,.1f}",
            f"{level['debiased_clicks']:,.1f}",
            f"{level['rate']:.3f}",
            f"{level['own_weight']:.0%}",
            f"{level['click_share']:.1%}",
        )
    return table


def _tolerances(mined: Mapping[str, Any]) -> Table:
    table = Table(title="Tolerance (0..1; lower accepts more)")
    table.add_column("of")
    table.add_column("mean ± sd", justify="right")
    for name, tolerance in (("this query", mined["tolerance"]), *mined["beside"].items()):
        table.add_row(name, "-" if tolerance is None else f"{tolerance['mean']:.2f} ± {tolerance['sd']:.2f}")
    return table


def _prices(prices: Mapping[str, Mapping[str, float | None]]) -> Table:
    table = Table(title="Prices of clicked items")
    table.add_column("of")
    for name in QUANTILE_NAMES:
        table.add_column(f"{name.removeprefix('price_p')} %", justify="right")
    for name, quantiles in prices.items():
        table.add_row(name, *("-" if price is None else f"{price:,.2f}" for price in quantiles.values()))
    return table


def _behaviours(behaviours: Sequence[Mapping[str, Any]]) -> Table:
    shown = behaviours[:BEHAVIOURS_SHOWN]
    clicks = sum(bool(behaviour["clicked"]) for behaviour in behaviours)
    table = Table(
        title=f"S_q, behaviours of other users: {len(shown)} of {len(behaviours)} ({clicks} of all are clicks)"
    )
    headings = ["item", "clicked", "when", "user", "user group"]
    headings += [name for name in ("level", "title") if name in shown[0]]
    for heading in headings:
        table.add_column(heading, no_wrap=True, overflow="ellipsis", max_width=42 if heading == "title" else None)
    for behaviour in shown:
        cells = [
            behaviour["item_id"],
            "yes" if behaviour["clicked"] else "no",
            behaviour["ts"][:16],
            behaviour["user_id"],
            str(behaviour["user_group"]),
        ]
        if "level" in behaviour:
            cells.append("-" if behaviour["level"] is None else LEVEL_NAMES[behaviour["level"]])
        if "title" in behaviour:
            cells.append(behaviour["title"] or "-")
        table.add_row(*(Text(cell) for cell in cells))
    return table

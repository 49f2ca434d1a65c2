"""plan: what a log of a given size would cost on machines of a given shape, and what breaks first; starts no Ray."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from jobs.options import Answer, command
from jobs.sizing.calculator import Answer as Estimate
from jobs.sizing.calculator import calculate, make_load
from jobs.sizing.costs import unit_costs
from jobs.sizing.load import STAGES, Machine, parse_count
from jobs.sizing.stages import StageNeed
from prectr.core.errors import UsageError, quoted
from prectr.reports.terminal import console

COUNTS = ("impressions_per_day", "queries", "labels", "requests_per_second", "users", "items", "gpu_tokens_per_second")
"""Options that may be written as 100M."""
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


@command("plan", show=lambda estimate: Answer(estimate.to_json(), show=lambda: print_answer(estimate)))
def run_command(
    *,
    impressions_per_day: Annotated[str, typer.Option(help="Shown rows a day, as 1B.")],
    queries: Annotated[str, typer.Option(help="Distinct queries in the history, as 100M.")],
    labels: Annotated[str, typer.Option(help="Questions for the teacher, as 500M.")],
    requests_per_second: Annotated[str, typer.Option(help="Calls of /v1/score at the peak, as 10k.")],
    candidates: Annotated[int | None, typer.Option(help="Candidates of a request; by default 100.")] = None,
    days: Annotated[int | None, typer.Option(help="Days of history; by default 30.")] = None,
    machine: Annotated[str, typer.Option(help="CORESxGIB of every machine, the driver's too.")] = "64x512",
    hours: Annotated[float | None, typer.Option(help="Hours that a stage may take; by default 6.")] = None,
    hours_of: Annotated[list[str] | None, typer.Option(help="STAGE=HOURS; may be given more than once.")] = None,
    gpu_tokens_per_second: Annotated[
        str | None, typer.Option(help="Prompt tokens a GPU reads with your teacher; without it no GPU-hours.")
    ] = None,
    users: Annotated[str | None, typer.Option(help="Distinct users; else assumed.")] = None,
    items: Annotated[str | None, typer.Option(help="Items of the catalogue; else assumed.")] = None,
    pairs_per_query: Annotated[float | None, typer.Option(help="Distinct items shown a query; else assumed.")] = None,
    repeats: Annotated[
        float | None, typer.Option(help="Showings of a pair, and requests of a user, on one day; else assumed.")
    ] = None,
) -> Estimate:
    """`prectr plan`: scale on paper, from measured unit costs."""
    return run(
        machine=machine,
        hours_of=hours_of or [],
        impressions_per_day=impressions_per_day,
        days=days,
        queries=queries,
        labels=labels,
        requests_per_second=requests_per_second,
        candidates=candidates,
        hours=hours,
        gpu_tokens_per_second=gpu_tokens_per_second,
        users=users,
        items=items,
        pairs_per_query=pairs_per_query,
        repeats=repeats,
    )


def run(*, machine: str, hours_of: list[str], **given: Any) -> Estimate:
    """The answer.

    Args:
        machine: a shape such as 64x512.
        hours_of: STAGE=HOURS.
        given: fields of a `Load`; None is left to its default. Counts may be texts such as 100M.

    Raises:
        UsageError: a value is no number, or out of its range; names the option.
    """
    counts = {
        name: parse_count(given[name], "--" + name.replace("_", "-"))
        for name in COUNTS
        if isinstance(given.get(name), str)
    }
    load = make_load(**given | counts, hours_of=dict(map(_hours, hours_of)))
    return calculate(load, Machine.parse(machine), unit_costs())


def _hours(text: str) -> tuple[str, float]:
    stage, _, hours = text.partition("=")
    try:
        value = float(hours)
    except ValueError:
        value = 0.0
    if stage not in STAGES or not value > 0:
        raise UsageError(
            f"--hours-of {quoted(text)}: give STAGE=HOURS with one of {', '.join(STAGES)} and hours above 0."
        )
    return stage, value


def print_answer(answer: Estimate) -> None:
    """Tables for people."""
    out, load, machine = console(), answer.load, answer.machine
    out.print(
        f"{short(load.impressions_per_day)} impressions a day, {load.days} days; {short(load.queries)} queries, "
        f"{short(load.pairs)} pairs; machines of {machine.cores} cores, {machine.gib:g} GiB"
    )
    if load.assumed:
        values = ", ".join(f"{name} {short(getattr(load, name))}" for name in load.assumed)
        out.print(f"assumed, not given: {values}")
    out.print(f"unit costs: {answer.costs.machine}")
    stages = _table(
        "A first run over the whole history; memory: of the largest thing in one place",
        ("stage",),
        ("reads", "writes", "shuffles", "memory", "core-hours", "serial hours", "deadline h", "machines"),
    )
    for one in answer.stages:
        stages.add_row(
            one.stage,
            *(
                bytes_text(size)
                for size in (one.input_bytes, one.output_bytes, one.shuffle_bytes, answer.memory(one.stage))
            ),
            *(f"{hours:,.1f}" for hours in (one.core_hours, one.serial_hours)),
            f"{one.deadline_hours:g}",
            _machines(one),
        )
    out.print(stages)
    for one in answer.stages:
        if one.note:
            out.print(f"  {one.stage}: {one.note}", highlight=False)
    _print_labelling(answer)
    serving = answer.serving
    out.print(
        f"serving: {load.requests_per_second:,.0f} requests/s of {load.candidates} candidates = {serving.replicas:,} "
        f"replicas at {load.utilisation:.0%} load ({bytes_text(serving.replica_bytes)}) on {serving.machines:,} "
        f"machines, each with a copy of the state: {bytes_text(serving.state_bytes)}"
    )
    held = _table(
        "Held whole, the first to break first",
        ("what", "command", "by"),
        ("B/unit", "here", "limit", "breaks at", "x load"),
    )
    for structure in answer.structures:
        held.add_row(
            structure.name,
            structure.stage,
            structure.holder,
            "" if structure.counted else f"{structure.bytes_per_unit:,.0f}",
            short(structure.count) if structure.counted else bytes_text(structure.bytes),
            short(structure.limit) if structure.counted else bytes_text(structure.limit),
            f"{short(structure.breaks_at_count)} {structure.unit}",
            f"{structure.breaks_at:.2g}" if structure.breaks_at < 1 else f"{structure.breaks_at:,.1f}",
        )
    out.print(held)
    first = answer.first_bottleneck
    verdict = "breaks at this load already" if first.breaks_at < 1 else "is the first to break as the load grows"
    out.print(
        f"first bottleneck: {first.name} ({first.stage}, {first.where}) {verdict}: "
        f"at {short(first.breaks_at_count)} {first.unit}",
        highlight=False,
    )


def _table(title: str, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in texts:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _machines(need: StageNeed) -> str:
    if not need.core_hours and not need.serial_hours:
        return "-"
    return "none will do" if need.machines is None else f"{need.machines:,}"


def _print_labelling(answer: Estimate) -> None:
    labelling, load = answer.labelling, answer.load
    told = (
        f"labelling: {short(load.labels)} questions, {short(labelling.tokens)} prompt tokens, of them "
        f"{short(labelling.shared_tokens)} in the beginning that all share"
    )
    if labelling.gpu_hours is None:
        told += "; GPU-hours: give --gpu-tokens-per-second of your GPU and teacher, none was measured here"
    else:
        told += (
            f"; {labelling.gpu_hours:,.0f} GPU-hours, {labelling.gpus:,} GPUs, at {load.gpu_tokens_per_second:,.0f} "
            "tokens/s a GPU (assumed, not measured; all tokens counted)"
        )
    console().print(told)


def short(count: float) -> str:
    """1.5 B, 200 M, 10 k."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= size:
            return f"{count / size:.3g} {letter}"
    return f"{count:.3g}"


def bytes_text(size: float) -> str:
    """Bytes with three digits, in powers of 1000."""
    for unit in _UNITS[:-1]:
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} {_UNITS[-1]}"

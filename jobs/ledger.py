"""ledger stats, export, gc: count, export or tidy the labels in a ledger."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import PATH, Answer, command
from prectr.core import progress
from prectr.core.errors import UsageError, listed, shorten
from prectr.labelling.ledger import KINDS
from prectr.labelling.ledger_upkeep import chosen, drop, export, open_ledger, statistics, tidy, unused_since
from prectr.reports.terminal import console

LedgerIn = Annotated[Path, typer.Argument(help="Directory of the label ledger.", **PATH)]


@command("ledger stats", show=lambda content: Answer(content, show=lambda: print_stats(content)))
def stats(directory: LedgerIn) -> dict[str, Any]:
    """Counts of each context, and their sum."""
    contexts = statistics(open_ledger(directory))
    total = {name: sum(one[name] for one in contexts) for name in ("labels", "errors", "repeats", "shards", "bytes")}
    return {"ledger": str(directory), "contexts": contexts, "total": total}


def print_stats(content: dict[str, Any]) -> None:
    """Print the counts as a table."""
    from rich.table import Table

    table = Table(title=content["ledger"])
    for name in ("context", "prompt", "teacher"):
        table.add_column(name, overflow="fold")
    for name in ("labels", "errors", "repeats", "shards", "MiB"):
        table.add_column(name, justify="right")
    table.add_column("last run")
    for one in content["contexts"]:
        counts = [f"{one[name]:,}" for name in ("labels", "errors", "repeats", "shards")]
        size = f"{one['bytes'] / 2**20:.1f}"
        table.add_row(one["context"], one["prompt"], one["teacher"], *counts, size, one["last_run"] or "")
    console().print(table)


@command("ledger export", show=lambda content: Answer(content, show=lambda: _print_export(content)))
def write_export(
    directory: LedgerIn,
    out: Annotated[Path, typer.Option("--out", help="File to write: .parquet, .csv or .jsonl.")],
    kind: Annotated[str, typer.Option(help="labels, errors or repeats.")] = "labels",
    contexts: Annotated[
        list[str] | None, typer.Option("--context", help="Only this context; may be given more than once.")
    ] = None,
) -> dict[str, Any]:
    """Write labels, errors or repeats into one file."""
    if kind not in KINDS:
        raise UsageError(f"--kind {shorten(kind, 80)}: give one of {', '.join(KINDS)}.")
    return {"path": str(out), "rows": export(open_ledger(directory), out, kind, contexts or [])}


def _print_export(content: dict[str, Any]) -> None:
    print(f"{content['rows']:,} rows: {content['path']}")


@command("ledger gc", show=lambda content: Answer(content, show=lambda: None))
def gc(
    directory: LedgerIn,
    drop_contexts: Annotated[
        list[str] | None, typer.Option("--drop", help="Delete this context; may be given more than once.")
    ] = None,
    unused_days: Annotated[float | None, typer.Option(help="Delete contexts without a run in so many days.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Really delete.")] = False,
) -> dict[str, Any]:
    """Tidy every context; with `yes` also drop named contexts and contexts without a run in `unused_days` days.

    Raises:
        UsageError: contexts would be dropped and `yes` is false; nothing was done.
    """
    ledger = open_ledger(directory)
    going = chosen(ledger, drop_contexts) if drop_contexts else []
    if unused_days is not None:
        named = {context.folder for context in going}
        going += [context for context in unused_since(ledger, unused_days) if context.folder not in named]
    if going and not yes:
        counts = {one["context"]: one["labels"] for one in statistics(ledger)}
        names = listed([f"{context.folder.name} ({counts[context.folder.name]:,} labels)" for context in going])
        raise UsageError(
            f"{directory}: this deletes {names}, which a teacher was paid for; nothing was done. Give --yes."
        )
    dropped = {context.folder.name: drop(context) for context in going}
    for name, labels in dropped.items():
        progress.say(f"ledger gc: dropped {name} with {labels:,} labels")
    tidied = {context.folder.name: asdict(tidy(context)) for context in ledger.contexts()}
    for name, done in tidied.items():
        progress.say(
            f"ledger gc: {name}: " + ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in done.items())
        )
    return {"dropped": dropped, "tidied": tidied}

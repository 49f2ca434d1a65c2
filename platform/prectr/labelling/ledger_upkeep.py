"""Upkeep of a label ledger: count, export, tidy and delete.

Nothing here asks a teacher. Only `drop` deletes answers.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from prectr.core import mirror
from prectr.core.errors import PrectrError, UsageError, listed, shorten
from prectr.labelling.ledger import KINDS, ContextLedger, LabelLedger

LARGE_SHARD = 1_000_000
"""Rows from which on a shard is no longer merged with others."""
_LEFTOVER_SECONDS = 3600.0
"""Age of a partial file, in seconds, from which on its run must have been killed."""


def open_ledger(directory: Path) -> LabelLedger:
    """Open an existing ledger.

    Raises:
        UsageError: the directory holds no ledger.
    """
    ledger = LabelLedger(directory)
    if not ledger.contexts():
        raise UsageError(
            f"{directory}: no label ledger here; `prectr label` writes one beside its --out, or at label.ledger."
        )
    return ledger


def statistics(ledger: LabelLedger) -> list[dict[str, Any]]:
    """Summarise each context: its parts, rows of each kind, shards, bytes and last run. Reads only Parquet footers.

    A question that is stored twice, as a killed `ledger gc` may leave it, counts twice.
    """
    return [_context_statistics(context) for context in ledger.contexts()]


def _context_statistics(context: ContextLedger) -> dict[str, Any]:
    description, runs = context.describe(), context.runs()
    shards = {kind: context.shards(kind) for kind in KINDS}
    last_run = runs[-1] if runs else {}
    return {
        "context": context.folder.name,
        **{name: description.get(name) for name in ("teacher", "prompt", "model", "decoding")},
        **{kind: sum(_rows(file) for file in files) for kind, files in shards.items()},
        "shards": sum(map(len, shards.values())),
        "bytes": sum(file.stat().st_size for files in shards.values() for file in files),
        "runs": len(runs),
        "last_run": last_run.get("run"),
        "questions_per_second": last_run.get("questions_per_second"),
    }


def _rows(file: Path) -> int:
    try:
        return int(pq.read_metadata(file).num_rows)
    except (OSError, ValueError) as error:
        raise PrectrError(
            f"{file}: cannot be read ({shorten(error)}); restore it, or delete it and label again."
        ) from None


def export(ledger: LabelLedger, target: Path, kind: str = "labels", contexts: Sequence[str] = ()) -> int:
    """Write one kind of rows of all contexts, or of those named, to one file; return the number of rows.

    Columns are those of the kind and `context`, `teacher`, `prompt`, `decoding`, with one row per context and key. The
    file's ending sets its format: .parquet, .csv or .jsonl.

    Raises:
        UsageError: the file has another ending, or there is no such context.
    """
    writers = {".parquet": "write_parquet", ".csv": "write_csv", ".jsonl": "write_ndjson"}
    if target.suffix not in writers:
        raise UsageError(f"{target}: --out must end in {', '.join(writers)}.")
    frames = []
    for context in chosen(ledger, contexts):
        description = context.describe()
        rows = pl.concat([pl.DataFrame(schema=KINDS[kind]), *(pl.read_parquet(file) for file in context.shards(kind))])
        frames.append(
            rows.unique("key", keep="first", maintain_order=True).with_columns(
                pl.lit(context.folder.name).alias("context"),
                *(pl.lit(description[name]).alias(name) for name in ("teacher", "prompt", "decoding")),
            )
        )
    exported = pl.concat(frames)
    partial_file = target.with_name(f".{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    getattr(exported, writers[target.suffix])(partial_file)
    partial_file.replace(target)
    return len(exported)


def chosen(ledger: LabelLedger, contexts: Sequence[str]) -> list[ContextLedger]:
    """Select contexts by name or by the beginning of a name; all if `contexts` is empty.

    Raises:
        UsageError: a name matches no context, or more than one.
    """
    all_contexts = ledger.contexts()
    if not contexts:
        return all_contexts
    selected = []
    for name in contexts:
        matches = [context for context in all_contexts if context.folder.name.startswith(name)]
        if len(matches) != 1:
            names = listed([context.folder.name for context in all_contexts])
            raise UsageError(
                f"context {shorten(name, 80)}: matches {len(matches)} of this ledger's contexts ({names}); give the "
                "name of one."
            )
        selected += matches
    return selected


@dataclass(frozen=True)
class Tidied:
    """Counts of what `tidy` changed in a context.

    Attributes:
        merged_shards: small shards that were merged into larger ones.
        duplicate_rows: rows removed because their key was stored twice.
        settled_errors: errors removed because their question has an answer now.
        leftovers: partial files of killed runs that were removed.
    """

    merged_shards: int = 0
    duplicate_rows: int = 0
    settled_errors: int = 0
    leftovers: int = 0


def tidy(context: ContextLedger) -> Tidied:
    """Merge small shards; remove errors whose question has an answer now, and partial files of killed runs.

    No answer is lost: a merged file is complete before the files that it replaces are deleted. If the process is killed
    in between, rows are stored twice; readers ignore that, and the next `tidy` removes them. Waits for a run that
    writes.
    """
    with context.writing():
        leftovers = [
            file for file in context.folder.glob(".*.part") if time.time() - file.stat().st_mtime > _LEFTOVER_SECONDS
        ]
        for file in leftovers:
            file.unlink(missing_ok=True)
        merged = duplicates = settled = 0
        for kind in KINDS:
            small_shards = [file for file in context.shards(kind) if _rows(file) < LARGE_SHARD]
            stored = pl.concat([pl.DataFrame(schema=KINDS[kind]), *(pl.read_parquet(file) for file in small_shards)])
            kept = stored.unique("key", keep="last" if kind == "errors" else "first", maintain_order=True)
            duplicates += len(stored) - len(kept)
            if kind == "errors":
                before = len(kept)
                kept = kept.join(context.answered_keys(kept["key"]).to_frame(), on="key", how="anti")
                settled = before - len(kept)
            if len(small_shards) < 2 and len(kept) == len(stored):
                continue
            merged += len(small_shards)
            for number, part in enumerate(kept.iter_slices(LARGE_SHARD)):
                # Named after the first shard, so that the earliest answer stays the earliest.
                context.write_shard(f"{small_shards[0].stem}-m{number:04d}.parquet", part)
            for file in small_shards:
                mirror.delete_file(file)
                file.unlink()
        return Tidied(merged, duplicates, settled, len(leftovers))


def unused_since(ledger: LabelLedger, days: float) -> list[ContextLedger]:
    """List the contexts whose last run began more than `days` days ago."""
    limit = f"{datetime.now(UTC) - timedelta(days=days):%Y%m%dT%H%M%S}"
    return [context for context in ledger.contexts() if max((run["run"] for run in context.runs()), default="") < limit]


def drop(context: ContextLedger) -> int:
    """Delete a context with all its answers; return the number of deleted labels. Waits for a run that writes."""
    import shutil

    with context.writing():
        labels = sum(_rows(file) for file in context.shards("labels"))
        # context.json goes first: if the process is killed half-way, nobody reads the rest as a context.
        context_file = context.folder / "context.json"
        other_files = [file for file in context.folder.rglob("*") if file.is_file() and file != context_file]
        for file in [context_file, *other_files]:
            mirror.delete_file(file)
        context_file.unlink()
        shutil.rmtree(context.folder)
    return labels

"""Counting, exporting and tidying a label ledger. Nothing here asks a teacher; only `drop` gives up an answer."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from prectr.core import mirror
from prectr.core.errors import PrectrError, UsageError
from prectr.labelling.ledger import KINDS, ContextLedger, LabelLedger

LARGE_SHARD = 1_000_000
"""Rows of a shard that is not merged any more."""
_LEFTOVER_SECONDS = 3600.0
"""A file that was being written so long ago belongs to a killed run."""


def open_ledger(directory: Path) -> LabelLedger:
    """An existing ledger.

    Raises:
        UsageError: there is none here.
    """
    ledger = LabelLedger(directory)
    if not ledger.contexts():
        raise UsageError(f"{directory}: no label ledger here; `prectr label` keeps one beside its --out.")
    return ledger


def statistics(ledger: LabelLedger) -> list[dict[str, Any]]:
    """One dictionary a context: what it is, rows of each kind, shards, bytes, last run; reads footers only.

    Rows count what is stored; a question that was stored twice, as a killed `gc` may leave it, counts twice.
    """
    return [_context_statistics(context) for context in ledger.contexts()]


def _context_statistics(context: ContextLedger) -> dict[str, Any]:
    described, runs = context.describe(), context.runs()
    shards = {kind: context.shards(kind) for kind in KINDS}
    last = runs[-1] if runs else {}
    return {
        "context": context.folder.name,
        **{name: described.get(name) for name in ("teacher", "prompt", "model", "decoding")},
        **{kind: sum(_rows(file) for file in files) for kind, files in shards.items()},
        "shards": sum(map(len, shards.values())),
        "bytes": sum(file.stat().st_size for files in shards.values() for file in files),
        "runs": len(runs),
        "last_run": last.get("run"),
        "questions_per_second": last.get("questions_per_second"),
    }


def _rows(file: Path) -> int:
    try:
        return int(pq.read_metadata(file).num_rows)
    except (OSError, ValueError) as error:
        raise PrectrError(f"{file}: cannot be read ({error}); restore it, or delete it and label again.") from None


def export(ledger: LabelLedger, target: Path, kind: str = "labels", contexts: Sequence[str] = ()) -> int:
    """Write one kind of all contexts, or of those named, into one file; the number of rows.

    Columns are those of the kind and `context`, `teacher`, `prompt`, `decoding`; one row a context and key. The ending
    of the file says how it is written: .parquet, .csv or .jsonl.

    Raises:
        UsageError: another ending, or no such context.
    """
    writers = {".parquet": "write_parquet", ".csv": "write_csv", ".jsonl": "write_ndjson"}
    if target.suffix not in writers:
        raise UsageError(f"{target}: --out must end in {', '.join(writers)}.")
    frames = []
    for context in chosen(ledger, contexts):
        described = context.describe()
        rows = pl.concat([pl.DataFrame(schema=KINDS[kind]), *(pl.read_parquet(file) for file in context.shards(kind))])
        frames.append(
            rows.unique("key", keep="first", maintain_order=True).with_columns(
                pl.lit(context.folder.name).alias("context"),
                *(pl.lit(described[name]).alias(name) for name in ("teacher", "prompt", "decoding")),
            )
        )
    exported = pl.concat(frames)
    aside = target.with_name(f".{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    getattr(exported, writers[target.suffix])(aside)
    aside.replace(target)
    return len(exported)


def chosen(ledger: LabelLedger, contexts: Sequence[str]) -> list[ContextLedger]:
    """The contexts of these names, or of names that begin so; all where none is named.

    Raises:
        UsageError: a name fits none, or several.
    """
    known = ledger.contexts()
    if not contexts:
        return known
    found = []
    for name in contexts:
        fitting = [context for context in known if context.folder.name.startswith(name)]
        if len(fitting) != 1:
            names = ", ".join(context.folder.name for context in known)
            raise UsageError(f"context {name}: fits {len(fitting)} of this ledger's contexts ({names}); name one.")
        found += fitting
    return found


@dataclass(frozen=True)
class Tidied:
    """What `tidy` did to a context."""

    merged_shards: int = 0
    duplicate_rows: int = 0
    settled_errors: int = 0
    leftovers: int = 0


def tidy(context: ContextLedger) -> Tidied:
    """Merge small shards, remove errors whose question was answered since, and files of killed writers.

    No answer is lost: a merged file is whole before the first of those it replaces goes; killed in between, rows are
    stored twice, which reading does not mind and the next `tidy` mends. Waits for a run that is writing.
    """
    with context.writing():
        leftovers = [
            file for file in context.folder.glob(".*.part") if time.time() - file.stat().st_mtime > _LEFTOVER_SECONDS
        ]
        for file in leftovers:
            file.unlink(missing_ok=True)
        merged = duplicates = settled = 0
        for kind in KINDS:
            small = [file for file in context.shards(kind) if _rows(file) < LARGE_SHARD]
            stored = pl.concat([pl.DataFrame(schema=KINDS[kind]), *(pl.read_parquet(file) for file in small)])
            kept = stored.unique("key", keep="last" if kind == "errors" else "first", maintain_order=True)
            duplicates += len(stored) - len(kept)
            if kind == "errors":
                before = len(kept)
                kept = kept.join(context.known(kept["key"]).to_frame(), on="key", how="anti")
                settled = before - len(kept)
            if len(small) < 2 and len(kept) == len(stored):
                continue
            merged += len(small)
            for number, part in enumerate(kept.iter_slices(LARGE_SHARD)):
                # Named after the first, so that the earliest answer stays the earliest.
                context.write_shard(f"{small[0].stem}-m{number:04d}.parquet", part)
            for file in small:
                mirror.delete_file(file)
                file.unlink()
        return Tidied(merged, duplicates, settled, len(leftovers))


def unused_since(ledger: LabelLedger, days: float) -> list[ContextLedger]:
    """Contexts whose last run began before so many days."""
    limit = f"{datetime.now(UTC) - timedelta(days=days):%Y%m%dT%H%M%S}"
    return [context for context in ledger.contexts() if max((run["run"] for run in context.runs()), default="") < limit]


def drop(context: ContextLedger) -> int:
    """Delete a context with all its answers; the number of labels that went. Waits for a run that is writing."""
    import shutil

    with context.writing():
        labels = sum(_rows(file) for file in context.shards("labels"))
        # First what makes it a context: killed half-way, the rest is not read any more.
        described = context.folder / "context.json"
        for file in [described, *(file for file in context.folder.rglob("*") if file.is_file() and file != described)]:
            mirror.delete_file(file)
        described.unlink()
        shutil.rmtree(context.folder)
    return labels

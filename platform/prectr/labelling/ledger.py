"""The label ledger stores every answer of the teacher, so that no question is asked, or paid for, twice.

    LEDGER/<context>/context.json            prompt, model and decoding that the answers depend on
                     labels-*.parquet        the teacher's raw answers, before calibration (`LABELS`)
                     errors-*.parquet        questions without an answer, with the reason (`ERRORS`)
                     repeats-*.parquet       second answers to some questions, for the flip rate (`LABELS`)
                     runs/*.json             engine, versions, flags and speed of each run

A label's key is a hash of everything that could change it: the normalised texts that the prompt shows, the prompt's
version, the model's fingerprint and the decoding. The last three are the context. A changed prompt or model gets
another folder, and the old answers stay. Files are only added, each whole, by a rename, so a killed run keeps what
it had committed. One run at a time writes to a context while others wait; readers never wait. This module never deletes
an answer: `ledger_upkeep` counts, exports and tidies.
"""

import errno
import hashlib
import io
import json
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core import mirror, progress
from prectr.core.artifacts import write_json
from prectr.core.errors import PrectrError, UsageError, quoted, shorten
from prectr.core.locks import exclusive

Schema = dict[str, type[pl.DataType]]

LABELS: Schema = {
    "key": pl.String,
    "query": pl.String,
    "title": pl.String,
    "shown": pl.String,
    **dict.fromkeys(LEVEL_COLUMNS, pl.Float32),
    "outside_mass": pl.Float32,
    "engine": pl.String,
    "run": pl.String,
}
ERRORS: Schema = {
    "key": pl.String,
    "query": pl.String,
    "title": pl.String,
    "shown": pl.String,
    "error": pl.String,
    "run": pl.String,
}
KINDS: dict[str, Schema] = {"labels": LABELS, "errors": ERRORS, "repeats": LABELS}

_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class Context:
    """Everything besides the texts that an answer depends on.

    Attributes:
        prompt: version of the template.
        model: fingerprint of the teacher.
        decoding: how the answer is read.
        teacher: the teacher's name or path, for people; not part of the identity.
        prompt_text: the template's text, for people; not part of the identity.
    """

    prompt: str
    model: str
    decoding: str
    teacher: str = ""
    prompt_text: str = ""

    @property
    def identity(self) -> str:
        """16 hexadecimal digits: the name of the context's folder."""
        return hashlib.blake2b(self._joined().encode(), digest_size=8).hexdigest()

    def _joined(self) -> str:
        return _SEPARATOR.join([self.prompt, self.model, self.decoding])

    def keys(self, texts: pl.DataFrame) -> pl.Series:
        """Hash each question to its key of 32 hexadecimal digits.

        Args:
            texts: the string columns that the prompt shows, already in normal form. Their order changes the keys.
        """
        context_hash = hashlib.blake2b(self._joined().encode(), digest_size=16)
        joined_texts = texts.select(pl.concat_str(pl.all(), separator=_SEPARATOR)).to_series()

        def key(text: str) -> str:
            question_hash = context_hash.copy()
            question_hash.update(text.encode())
            return question_hash.hexdigest()

        return pl.Series("key", [key(text) for text in joined_texts.to_list()], dtype=pl.String)


def model_fingerprint(teacher: str) -> str:
    """Identify a teacher: a hash of a local checkpoint's files, else name and revision on the hub.

    Raises:
        UsageError: the teacher is no directory and no model on the hub, or the hub cannot be reached.
    """
    directory = Path(teacher)
    if not directory.is_dir():
        from transformers import AutoConfig

        try:
            revision = getattr(AutoConfig.from_pretrained(teacher), "_commit_hash", None)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"teacher {quoted(teacher, 300)}: cannot be loaded (no such directory; {shorten(error)}). "
                "Give a checkpoint directory, e.g. from `prectr train-teacher`, a model on the hub, or a URL."
            ) from None
        return f"{teacher}@{revision}" if revision else teacher
    checkpoint_hash = hashlib.blake2b(digest_size=12)
    for pattern in ("config.json", "*.safetensors", "*.bin", "tokenizer*", "vocab*", "merges*", "chat_template*"):
        for file in sorted(directory.glob(pattern)):
            checkpoint_hash.update(file.name.encode())
            with file.open("rb") as stream:
                checkpoint_hash.update(hashlib.file_digest(stream, "blake2b").digest())
    return checkpoint_hash.hexdigest()


class LabelLedger:
    """A ledger directory, which holds one folder per context.

    If the directory mirrors a URI, every file is also sent there when it is committed.

    Raises:
        UsageError: the storage behind the URI cannot be read or written.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        mirror.fetch(directory)
        mirror.send_missing(directory)

    def context(self, context: Context) -> "ContextLedger":
        """Open the folder of `context`; create it if there is none."""
        folder = self.directory / context.identity
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        if not (folder / "context.json").exists():
            write_json(folder / "context.json", asdict(context))
            mirror.send_file(folder / "context.json")
        return ContextLedger(folder)

    def contexts(self) -> list["ContextLedger"]:
        """List the folders of all contexts, by name."""
        return [ContextLedger(file.parent) for file in sorted(self.directory.glob("*/context.json"))]


class ContextLedger:
    """The answers under one context: read and append."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def describe(self) -> dict[str, Any]:
        """Read `context.json`.

        Raises:
            PrectrError: the file cannot be read.
        """
        file = self.folder / "context.json"
        try:
            content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PrectrError(
                f"{file}: cannot be read ({shorten(error)}); restore it from a copy of the ledger."
            ) from None
        return content

    def labels(self, keys: pl.Series) -> pl.DataFrame:
        """Read the labels of some keys: columns of `LABELS`, the earliest row of each key."""
        return self._read("labels", keys)

    def repeats(self, keys: pl.Series) -> pl.DataFrame:
        """Read the second answers of some keys: columns of `LABELS`, the earliest row of each key."""
        return self._read("repeats", keys)

    def errors(self, keys: pl.Series) -> pl.DataFrame:
        """Read the failures of those keys that have no label: columns of `ERRORS`, the latest row of each key."""
        errors = self._read("errors", keys, keep="last")
        return errors.join(self.labels(errors["key"]), on="key", how="anti") if len(errors) else errors

    def answered_keys(self, keys: pl.Series, kind: str = "labels") -> pl.Series:
        """Select those of `keys` that have a row of `kind`. Reads no other column."""
        return self._read(kind, keys, columns=["key"])["key"]

    def append(self, kind: str, rows: pl.DataFrame) -> None:
        """Commit rows of one of `KINDS` as one shard. Afterwards they survive a kill and a power cut.

        Raises:
            PrectrError: the disk is full or not writable. Nothing of the shard is kept; other shards stay as they are.
        """
        if rows.is_empty():
            return
        schema = KINDS[kind]
        name = f"{kind}-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.parquet"
        shard = rows.select(pl.col(column).cast(data_type) for column, data_type in schema.items())
        self.write_shard(name, shard)

    def write_shard(self, name: str, shard: pl.DataFrame) -> None:
        """Write one file, whole or not at all. Raises as `append` does."""
        partial_file = self.folder / f".{name}.part"
        try:
            # Encode in memory first: polars reports a full disk by several different errors.
            with partial_file.open("wb") as stream:
                stream.write(_encode(shard))
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial_file, self.folder / name)
            _sync_folder(self.folder)
            mirror.send_file(self.folder / name)
        except OSError as error:
            partial_file.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise PrectrError(
                    f"{self.folder}: the disk is full; {len(shard):,} answers could not be kept. Answers committed "
                    "before are safe: free space, then run the same command again."
                ) from None
            raise PrectrError(
                f"{self.folder}: cannot be written ({error.strerror}); check the folder's permissions and its disk."
            ) from None

    def shards(self, kind: str) -> list[Path]:
        """List the files of one kind, earliest first."""
        return sorted(self.folder.glob(f"{kind}-*.parquet"))

    def runs(self) -> list[dict[str, Any]]:
        """Read the records of the runs that asked something, earliest first. Unreadable records are left out."""
        records = []
        for file in sorted((self.folder / "runs").glob("*.json")):
            try:
                records.append(json.loads(file.read_text(encoding="utf-8")))
            except (OSError, ValueError):
                continue
        return records

    def record_run(self, run: str, facts: dict[str, Any]) -> None:
        """Write the record of a run; replace an earlier one of that run."""
        file = self.folder / "runs" / f"{run}.json"
        write_json(file, {"run": run, **facts})
        mirror.send_file(file)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the write lock; wait while another process holds it. The OS releases a killed process's lock."""

        def report_wait(holder: str) -> None:
            progress.say(f"label: waiting for {holder}, which asks the same teacher")

        with exclusive(self.folder / ".writer", report_wait):
            yield

    def _read(
        self, kind: str, keys: pl.Series, keep: str = "first", columns: Sequence[str] | None = None
    ) -> pl.DataFrame:
        selected = list(columns or KINDS[kind])
        for last_try in (False, True):
            shards = self.shards(kind)
            if not shards or keys.is_empty():
                break
            try:
                rows = (
                    pl.scan_parquet(shards, schema=KINDS[kind], missing_columns="raise")
                    .select(selected)
                    .join(keys.unique().alias("key").to_frame().lazy(), on="key", how="semi", maintain_order="left")
                    .collect()
                )
                return rows.unique("key", keep="last" if keep == "last" else "first", maintain_order=True)
            except (pl.exceptions.PolarsError, OSError) as error:
                # `ledger gc` may have merged files after they were listed: list them once more.
                if last_try:
                    raise PrectrError(_damage_message(shards, error)) from None
        return pl.DataFrame(schema={column: KINDS[kind][column] for column in selected})


def new_run() -> str:
    """Make the name of a new run. Names sort by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"


def _encode(shard: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    shard.write_parquet(buffer)
    return buffer.getvalue()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damage_message(shards: Sequence[Path], error: Exception) -> str:
    """Write the error message that names the unreadable file."""
    for shard in shards:
        try:
            pl.read_parquet(shard)
        except (pl.exceptions.PolarsError, OSError) as cause:
            reason = shorten(cause)
            return (
                f"{shard}: this shard of the label ledger cannot be read ({reason}); restore it, or delete it to have "
                "its questions asked again."
            )
    return (
        f"{shards[0].parent}: the label ledger cannot be read ({shorten(error)}); check its permissions and its disk."
    )

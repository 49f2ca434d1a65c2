"""The label ledger: what the teacher has already answered, so that nothing is ever asked, or paid, twice.

    LEDGER/<context>/context.json            what the answers hang on: prompt, model, decoding
                     labels-*.parquet        the teacher's raw answers, before calibration (`LABELS`)
                     errors-*.parquet        questions that it could not answer, with the reason (`ERRORS`)
                     repeats-*.parquet       second answers to some questions, for the flip rate (`LABELS`)
                     runs/*.json             engine, versions, flags and speed of each run

A label is known by a key over everything that could change it: the normalised texts that the prompt shows, the prompt's
version, the model's fingerprint and the decoding. The last three make the context: a changed prompt or model answers in
a folder of its own, and the old answers stay. Files are only ever added, whole, by a rename; a killed run leaves what
it had committed. One run at a time writes to a context, another one waits; readers never wait.
`ledger_upkeep` counts, exports and tidies.
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
from prectr.core.errors import PrectrError, UsageError
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
    """What an answer hangs on beside the texts.

    Attributes:
        prompt: version of the template.
        model: fingerprint of the teacher.
        decoding: how the answer is read.
        teacher: the teacher's name or path, for people; no part of the identity.
        prompt_text: the template's text, for people.
    """

    prompt: str
    model: str
    decoding: str
    teacher: str = ""
    prompt_text: str = ""

    @property
    def identity(self) -> str:
        """16 hexadecimal digits: the name of the context's folder."""
        return hashlib.blake2b(self._secret().encode(), digest_size=8).hexdigest()

    def _secret(self) -> str:
        return _SEPARATOR.join([self.prompt, self.model, self.decoding])

    def keys(self, texts: pl.DataFrame) -> pl.Series:
        """The key of each question, 32 hexadecimal digits.

        Args:
            texts: the string columns that the prompt shows, already in normal form; their order counts.
        """
        seed = hashlib.blake2b(self._secret().encode(), digest_size=16)
        joined = texts.select(pl.concat_str(pl.all(), separator=_SEPARATOR)).to_series()

        def key(text: str) -> str:
            hashed = seed.copy()
            hashed.update(text.encode())
            return hashed.hexdigest()

        return pl.Series("key", [key(text) for text in joined.to_list()], dtype=pl.String)


def model_fingerprint(teacher: str) -> str:
    """Identity of a teacher: a hash of a local checkpoint's files, else name and revision on the hub.

    Raises:
        UsageError: it is neither, or cannot be reached.
    """
    directory = Path(teacher)
    if not directory.is_dir():
        from transformers import AutoConfig

        try:
            revision = getattr(AutoConfig.from_pretrained(teacher), "_commit_hash", None)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"teacher '{teacher}': cannot be loaded (it is no directory here; {str(error).splitlines()[0]}). "
                "Give a checkpoint directory, e.g. from `prectr train-teacher`, a model on the hub, or a URL."
            ) from None
        return f"{teacher}@{revision}" if revision else teacher
    total = hashlib.blake2b(digest_size=12)
    for pattern in ("config.json", "*.safetensors", "*.bin", "tokenizer*", "vocab*", "merges*", "chat_template*"):
        for file in sorted(directory.glob(pattern)):
            total.update(file.name.encode())
            with file.open("rb") as stream:
                total.update(hashlib.file_digest(stream, "blake2b").digest())
    return total.hexdigest()


class LabelLedger:
    """One directory of contexts; of one at a URI every file is sent as it is committed.

    Raises:
        UsageError: the storage of a URI cannot be read or written.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        mirror.fetch(directory)
        mirror.send_missing(directory)

    def context(self, context: Context) -> "ContextLedger":
        """The part of the ledger that holds answers under `context`; made if it is not there."""
        folder = self.directory / context.identity
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        if not (folder / "context.json").exists():
            write_json(folder / "context.json", asdict(context))
            mirror.send_file(folder / "context.json")
        return ContextLedger(folder)

    def contexts(self) -> list["ContextLedger"]:
        """All parts, by name."""
        return [ContextLedger(file.parent) for file in sorted(self.directory.glob("*/context.json"))]


class ContextLedger:
    """Read and append the answers under one context."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def describe(self) -> dict[str, Any]:
        """The content of `context.json`.

        Raises:
            PrectrError: it cannot be read.
        """
        file = self.folder / "context.json"
        try:
            content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PrectrError(f"{file}: cannot be read ({error}); restore it from another run's ledger.") from None
        return content

    def labels(self, keys: pl.Series) -> pl.DataFrame:
        """The labels known for these keys: columns of `LABELS`, one row a key, the earliest."""
        return self._read("labels", keys)

    def repeats(self, keys: pl.Series) -> pl.DataFrame:
        """The second answers known for these keys, as `labels`."""
        return self._read("repeats", keys)

    def errors(self, keys: pl.Series) -> pl.DataFrame:
        """Why these keys have no label: columns of `ERRORS`, one row a key, the latest; labelled ones are left out."""
        failed = self._read("errors", keys, keep="last")
        return failed.join(self.labels(failed["key"]), on="key", how="anti") if len(failed) else failed

    def known(self, keys: pl.Series, kind: str = "labels") -> pl.Series:
        """Those of the keys that the ledger holds; reads no other column."""
        return self._read(kind, keys, columns=["key"])["key"]

    def append(self, kind: str, rows: pl.DataFrame) -> None:
        """Commit rows of one of `KINDS` as one shard: after this returns they survive a kill and a power cut.

        Raises:
            PrectrError: the disk is full; nothing of the shard is kept, and nothing else is touched.
        """
        if rows.is_empty():
            return
        schema = KINDS[kind]
        name = f"{kind}-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.parquet"
        shard = rows.select(pl.col(column).cast(data_type) for column, data_type in schema.items())
        self.write_shard(name, shard)

    def write_shard(self, name: str, shard: pl.DataFrame) -> None:
        """Write one file whole or not at all."""
        aside = self.folder / f".{name}.part"
        try:
            # In memory first: what a full disk does to the encoder of a file is not told by polars in one voice.
            with aside.open("wb") as stream:
                stream.write(_encode(shard))
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(aside, self.folder / name)
            _sync_folder(self.folder)
            mirror.send_file(self.folder / name)
        except OSError as error:
            aside.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise PrectrError(
                    f"{self.folder}: the disk is full; {len(shard):,} answers could not be kept. What was committed "
                    "before is safe: free space, then run the same command again."
                ) from None
            raise PrectrError(f"{self.folder}: cannot be written ({error.strerror}).") from None

    def shards(self, kind: str) -> list[Path]:
        """The files of one kind, earliest first."""
        return sorted(self.folder.glob(f"{kind}-*.parquet"))

    def runs(self) -> list[dict[str, Any]]:
        """Records of the runs that asked something, earliest first; one that cannot be read is left out."""
        records = []
        for file in sorted((self.folder / "runs").glob("*.json")):
            try:
                records.append(json.loads(file.read_text(encoding="utf-8")))
            except (OSError, ValueError):
                continue
        return records

    def record_run(self, run: str, facts: dict[str, Any]) -> None:
        """Write or replace the record of a run."""
        file = self.folder / "runs" / f"{run}.json"
        write_json(file, {"run": run, **facts})
        mirror.send_file(file)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the right to write; waits while another process has it, which is given up even by a killed one."""

        def wait(holder: str) -> None:
            progress.say(f"label: waiting for {holder}, which asks the same teacher")

        with exclusive(self.folder / ".writer", wait):
            yield

    def _read(
        self, kind: str, keys: pl.Series, keep: str = "first", columns: Sequence[str] | None = None
    ) -> pl.DataFrame:
        wanted = list(columns or KINDS[kind])
        for last_try in (False, True):
            shards = self.shards(kind)
            if not shards or keys.is_empty():
                break
            try:
                found = (
                    pl.scan_parquet(shards, schema=KINDS[kind], missing_columns="raise")
                    .select(wanted)
                    .join(keys.unique().alias("key").to_frame().lazy(), on="key", how="semi", maintain_order="left")
                    .collect()
                )
                return found.unique("key", keep="last" if keep == "last" else "first", maintain_order=True)
            except (pl.exceptions.PolarsError, OSError) as error:
                # `ledger gc` may have merged files since they were listed: list them once more.
                if last_try:
                    raise PrectrError(_damaged(shards, error)) from None
        return pl.DataFrame(schema={column: KINDS[kind][column] for column in wanted})


def new_run() -> str:
    """The name of a run: sorts by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"


def _encode(shard: pl.DataFrame) -> bytes:
    memory = io.BytesIO()
    shard.write_parquet(memory)
    return memory.getvalue()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _damaged(shards: Sequence[Path], error: Exception) -> str:
    """Names the file that cannot be read."""
    for shard in shards:
        try:
            pl.read_parquet(shard)
        except (pl.exceptions.PolarsError, OSError) as cause:
            reason = str(cause).splitlines()[0]
            return (
                f"{shard}: this shard of the label ledger cannot be read ({reason}); restore it, or delete it to have "
                "its questions asked again."
            )
    return f"{shards[0].parent}: the label ledger cannot be read ({error})."

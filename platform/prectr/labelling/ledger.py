"""The label ledger: what the teacher has already answered, so that a rerun asks only for what is missing.

A directory of Parquet shards, appended and never rewritten; each is published by a rename, so a killed run leaves whole
shards. A label is known by a key over everything that could change it: query, title, prompt version, the model's
fingerprint and the decoding. The ledger holds the teacher's raw answers, before calibration.
"""

import hashlib
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from prectr.errors import PrectrError
from prectr.text import stable_hash

SCHEMA = {
    "key": pl.String,
    "query": pl.String,
    "title": pl.String,
    "level_0": pl.Float32,
    "level_1": pl.Float32,
    "level_2": pl.Float32,
    "level_3": pl.Float32,
    "outside_mass": pl.Float32,
    "engine": pl.String,
}


def label_keys(queries: Sequence[str], titles: Sequence[str], context: str) -> list[str]:
    """Hexadecimal keys of pairs under one `context` (prompt version, model fingerprint, decoding)."""
    return [f"{stable_hash(query, title, context):016x}" for query, title in zip(queries, titles, strict=True)]


def model_fingerprint(teacher: str) -> str:
    """Identity of a teacher: a hash of a local checkpoint's files, or the given name itself."""
    directory = Path(teacher)
    if not directory.is_dir():
        return teacher
    total = hashlib.blake2b(digest_size=12)
    for pattern in ("config.json", "*.safetensors", "tokenizer*.json", "chat_template*"):
        for file in sorted(directory.glob(pattern)):
            total.update(file.name.encode())
            with file.open("rb") as stream:
                total.update(hashlib.file_digest(stream, "blake2b").digest())
    return total.hexdigest()


class LabelLedger:
    """Read and append labels in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def read(self, keys: pl.Series) -> pl.DataFrame:
        """The labels known for these keys; the columns of `SCHEMA`, one row a key."""
        shards = sorted(self._directory.glob("shard-*.parquet"))
        if not shards:
            return pl.DataFrame(schema=SCHEMA)
        try:
            known = pl.scan_parquet(shards).filter(pl.col("key").is_in(keys.implode())).collect()
        except pl.exceptions.PolarsError as error:
            raise PrectrError(
                f"{self._directory}: a shard of the label ledger cannot be read ({error}); delete it."
            ) from None
        return known.unique("key", keep="first", maintain_order=True)

    def append(self, labels: pl.DataFrame) -> None:
        """Commit labels as one shard; after this returns they survive a kill."""
        if labels.is_empty():
            return
        name = f"shard-{uuid.uuid4().hex}.parquet"
        aside = self._directory / f".{name}.part"
        labels.select(pl.col(column).cast(kind) for column, kind in SCHEMA.items()).write_parquet(aside)
        os.replace(aside, self._directory / name)

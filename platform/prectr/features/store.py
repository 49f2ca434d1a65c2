"""The online state in LMDB: users, queries, items and pairs as of the end of the log. Replicas only read it.

Keys are `kind:name`; values are MessagePack maps of numbers and strings (floats exact, no pickle). All replicas of a
machine map the same file, so its pages are in memory once.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import lmdb
import msgpack

from prectr.core.errors import PrectrError

_PAIR_SEPARATOR = "\x1f"
_MAP_SLACK = 1 << 24
_LONGEST_KEY = 500

NamedEntry = tuple[str, dict[str, Any]]


def store_key(kind: str, name: str) -> bytes:
    """Build the key of an entry. LMDB limits the length of keys, so a name that is too long is replaced by its hash."""
    key = f"{kind}:{name}".encode()
    if len(key) <= _LONGEST_KEY:
        return key
    from prectr.core.text import stable_hash

    return f"{kind}#{stable_hash(name)}".encode()


def pair_name(query: str, item_id: str) -> str:
    """Build the name of a pair's entry; `query` must be normalised."""
    return f"{query}{_PAIR_SEPARATOR}{item_id}"


def write_store(path: Path, entries: Iterable[tuple[str, str, dict[str, Any]]]) -> dict[str, int]:
    """Write (kind, name, value) entries; returns the number of entries by kind."""
    return write_keys(path, ((store_key(kind, name), value) for kind, name, value in entries))


def kind_of(key: bytes) -> str:
    """Read the kind of an entry from its key."""
    return re.split(b"[:#]", key, maxsplit=1)[0].decode()


def write_keys(path: Path, entries: Iterable[tuple[bytes, dict[str, Any]]]) -> dict[str, int]:
    """Write (key, value) entries; returns the number of entries by kind.

    Raises:
        OSError: the disk is full.
    """
    packed = sorted((key, msgpack.packb(value), kind_of(key)) for key, value in entries)
    size = sum(len(key) + len(value) for key, value, _ in packed)
    path.mkdir(parents=True)
    counts: dict[str, int] = {}
    # Pages are never quite full, so the map is larger than the content. LMDB cuts the file to the used size on closing.
    try:
        with (
            lmdb.open(str(path), map_size=4 * size + _MAP_SLACK, subdir=True, lock=False) as environment,
            environment.begin(write=True) as transaction,
        ):
            for key, value, kind in packed:
                transaction.put(key, value, append=True)
                counts[kind] = counts.get(kind, 0) + 1
    except lmdb.Error as error:
        # LMDB reports a write to a full disk as an input/output error.
        if shutil.disk_usage(path).free < 2 * size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    return counts


class FeatureStore(Protocol):
    """Interface of the stores that online features read; `prectr.serving.states` holds more implementations."""

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """Read one entry; None if there is none."""

    def get_many(self, kind: str, names: Iterable[str]) -> list[dict[str, Any] | None]:
        """Entries of one kind in the order of `names`."""

    def scan(self, kind: str, prefix: str = "", after: str = "", most: int = 1_000) -> list[NamedEntry]:
        """Entries of one kind in the order of their names, beginning after `after`; see `OnlineStore.scan`."""

    def close(self) -> None:
        """Release the store."""


class OnlineStore:
    """Reads an online state.

    Raises:
        PrectrError: `path` holds no online state.
    """

    def __init__(self, path: Path) -> None:
        if not (path / "data.mdb").is_file():
            raise PrectrError(
                f"{path}: no online state here; `prectr build-samples` writes it, `prectr train` copies it to bundles."
            )
        self._environment = lmdb.open(str(path), readonly=True, lock=False, subdir=True, max_readers=512)

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """Read one entry; None if there is none."""
        with self._environment.begin(buffers=True) as transaction:
            value = transaction.get(store_key(kind, name))
            return None if value is None else msgpack.unpackb(value)

    def get_many(self, kind: str, names: Iterable[str]) -> list[dict[str, Any] | None]:
        """Entries of one kind in one read transaction."""
        with self._environment.begin(buffers=True) as transaction:
            values = [transaction.get(store_key(kind, name)) for name in names]
            return [None if value is None else msgpack.unpackb(value) for value in values]

    def scan(self, kind: str, prefix: str = "", after: str = "", most: int = 1_000) -> list[NamedEntry]:
        """Read entries of one kind in the order of their names, for lists that people choose from.

        Names that are too long for a key are left out. Read a long list in several calls, so that the thread can do
        other work in between.

        Args:
            kind: kind of the entries.
            prefix: beginning of their names.
            after: last name of the previous call; empty: begin with the first name.
            most: largest number of entries to return.
        """
        head = f"{kind}:".encode()
        key_prefix, start = head + prefix.encode(), head + (after or prefix).encode()
        entries: list[NamedEntry] = []
        if len(start) > _LONGEST_KEY:
            return entries
        with self._environment.begin(buffers=True) as transaction, transaction.cursor() as cursor:
            if not cursor.set_range(start):
                return entries
            for raw, value in cursor:
                key = bytes(raw)
                if len(entries) == most or not key.startswith(key_prefix):
                    break
                if not after or key != start:
                    entries.append((key[len(head) :].decode(), msgpack.unpackb(value)))
        return entries

    def close(self) -> None:
        """Unmap the file."""
        self._environment.close()

    def entries(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Iterate over all keys, in order, with their entries."""
        with self._environment.begin(buffers=True) as transaction:
            for key, value in transaction.cursor():
                yield bytes(key), msgpack.unpackb(value)

    def __len__(self) -> int:
        return int(self._environment.stat()["entries"])

"""The online state in LMDB: users, queries, items and pairs as they were at the end of the log, read-only to replicas.

Keys are `kind:name`; values are MessagePack maps of numbers and strings (floats exact, no pickle). Every replica maps
the same file, so the state lies in memory once a machine.
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
    """The key of an entry; LMDB bounds keys, so a name too long for it is replaced by its hash."""
    key = f"{kind}:{name}".encode()
    if len(key) <= _LONGEST_KEY:
        return key
    from prectr.core.text import stable_hash

    return f"{kind}#{stable_hash(name)}".encode()


def pair_name(query: str, item_id: str) -> str:
    """Name of a pair's entry; `query` in normal form."""
    return f"{query}{_PAIR_SEPARATOR}{item_id}"


def write_store(path: Path, entries: Iterable[tuple[str, str, dict[str, Any]]]) -> dict[str, int]:
    """Write (kind, name, value) entries; returns how many of each kind."""
    return write_keys(path, ((store_key(kind, name), value) for kind, name, value in entries))


def kind_of(key: bytes) -> str:
    """The kind of an entry, by its key."""
    return re.split(b"[:#]", key, maxsplit=1)[0].decode()


def write_keys(path: Path, entries: Iterable[tuple[bytes, dict[str, Any]]]) -> dict[str, int]:
    """As `write_store`, of entries by their key."""
    packed = sorted((key, msgpack.packb(value), kind_of(key)) for key, value in entries)
    size = sum(len(key) + len(value) for key, value, _ in packed)
    path.mkdir(parents=True)
    counts: dict[str, int] = {}
    # Twice the content: pages are not filled to the brim. The file is truncated to what is used when it is closed.
    try:
        with (
            lmdb.open(str(path), map_size=4 * size + _MAP_SLACK, subdir=True, lock=False) as environment,
            environment.begin(write=True) as transaction,
        ):
            for key, value, kind in packed:
                transaction.put(key, value, append=True)
                counts[kind] = counts.get(kind, 0) + 1
    except lmdb.Error as error:
        # LMDB calls a write that a full disk cut short an input/output error.
        if shutil.disk_usage(path).free < 2 * size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    return counts


class FeatureStore(Protocol):
    """What online features read; `prectr.serving.states` has more of them."""

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """One entry, or None where nothing is known."""

    def get_many(self, kind: str, names: Iterable[str]) -> list[dict[str, Any] | None]:
        """Entries of one kind."""

    def scan(self, kind: str, prefix: str = "", after: str = "", most: int = 1_000) -> list[NamedEntry]:
        """Entries of one kind in the order of their names, from the one after `after`; see `OnlineStore.scan`."""

    def close(self) -> None:
        """Let go of what is held."""


class OnlineStore:
    """Reads an online state.

    Raises:
        PrectrError: there is none at `path`.
    """

    def __init__(self, path: Path) -> None:
        if not (path / "data.mdb").is_file():
            raise PrectrError(
                f"{path}: no online state here; `prectr build-samples` writes it, `prectr train` bundles it."
            )
        self._environment = lmdb.open(str(path), readonly=True, lock=False, subdir=True, max_readers=512)

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """One entry, or None where nothing is known."""
        with self._environment.begin(buffers=True) as transaction:
            value = transaction.get(store_key(kind, name))
            return None if value is None else msgpack.unpackb(value)

    def get_many(self, kind: str, names: Iterable[str]) -> list[dict[str, Any] | None]:
        """Entries of one kind in one read transaction."""
        with self._environment.begin(buffers=True) as transaction:
            values = [transaction.get(store_key(kind, name)) for name in names]
            return [None if value is None else msgpack.unpackb(value) for value in values]

    def scan(self, kind: str, prefix: str = "", after: str = "", most: int = 1_000) -> list[NamedEntry]:
        """Entries of one kind in the order of their names, for lists that people choose from.

        Names that were too long for a key are not among them. A long list is read in several calls, so that whatever
        else the thread has to do comes in between.

        Args:
            kind: of the entries.
            prefix: that their names begin with.
            after: the name that the last call ended with; empty: from the first.
            most: entries of a call.
        """
        head = f"{kind}:".encode()
        wanted, start = head + prefix.encode(), head + (after or prefix).encode()
        found: list[NamedEntry] = []
        if len(start) > _LONGEST_KEY:
            return found
        with self._environment.begin(buffers=True) as transaction, transaction.cursor() as cursor:
            if not cursor.set_range(start):
                return found
            for raw, value in cursor:
                key = bytes(raw)
                if len(found) == most or not key.startswith(wanted):
                    break
                if not after or key != start:
                    found.append((key[len(head) :].decode(), msgpack.unpackb(value)))
        return found

    def close(self) -> None:
        """Unmap the file."""
        self._environment.close()

    def entries(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """All keys, in order, with their entries."""
        with self._environment.begin(buffers=True) as transaction:
            for key, value in transaction.cursor():
                yield bytes(key), msgpack.unpackb(value)

    def __len__(self) -> int:
        return int(self._environment.stat()["entries"])

"""Stores of user deltas: LMDB, shared by the replicas of one machine, or Redis for several machines."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import lmdb
import msgpack

from prectr.features.store import store_key
from prectr.serving.redis_client import KEY_PREFIX, RedisGuard
from prectr.serving.user_delta import KEPT_DAYS, Delta, UserRecord, list_hash

MAP_BYTES = 64 * 2**30
"""Reserved address space in bytes; the file grows only with its content."""
_DAY = 86_400
_REDIS_SECONDS = (30 * _DAY, (KEPT_DAYS + 1) * _DAY, (KEPT_DAYS + 1) * _DAY)
"""Seconds without an event after which Redis drops a user's delta, lists, and the rows of a list. By then the published
state holds their content."""

Result = TypeVar("Result")
Change = Callable[[UserRecord], tuple[UserRecord, Result]]
"""Function of a user's record that returns the new record, or the same one to write nothing, and a result."""


class UserDeltas(Protocol):
    """Store of the deltas of users and of their last lists."""

    def read(self, user_id: str) -> Delta | None:
        """Delta of a user; None without one."""

    def change(self, user_id: str, request_id: str, update: Change[Result]) -> Result:
        """Apply `update` to a user's record with the rows of a list, atomically; returns the result of `update`."""

    def close(self) -> None:
        """Release the store."""


class LmdbDeltas:
    """Deltas in a directory. A killed process leaves all deltas intact; a power failure may lose the last ones."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._environment = lmdb.open(str(path), map_size=MAP_BYTES, subdir=True, sync=False, max_readers=512)

    def read(self, user_id: str) -> Delta | None:
        """Delta of a user; None without one."""
        with self._environment.begin() as transaction:
            return _unpacked(transaction.get(store_key("delta", user_id)))

    def change(self, user_id: str, request_id: str, update: Change[Result]) -> Result:
        """Apply `update` to a user's record with the rows of a list; other writers wait."""
        keys = [store_key(kind, name) for kind, name in _names(user_id, list_hash(request_id))]
        with self._environment.begin(write=True) as transaction:
            before = _record([transaction.get(key) for key in keys])
            after, result = update(before)
            if after is not before:
                for key, value in zip(keys, _packed(after), strict=True):
                    transaction.put(key, value)
                for digest in _gone(before, after):
                    transaction.delete(store_key(*_names(user_id, digest)[-1]))
            return result

    def close(self) -> None:
        """Write all changes to disk and unmap the file."""
        self._environment.sync(True)
        self._environment.close()


class RedisDeltas:
    """Deltas in Redis. Every method raises `StoreDown` while Redis does not answer."""

    def __init__(self, guard: RedisGuard) -> None:
        self._guard = guard

    def read(self, user_id: str) -> Delta | None:
        """Delta of a user; None without one."""
        return _unpacked(self._guard.call(lambda client: client.get(_redis_key("delta", user_id))))

    def change(self, user_id: str, request_id: str, update: Change[Result]) -> Result:
        """Apply `update` to a user's record with the rows of a list; repeated if another writer changed it."""
        return self._guard.call(lambda client: _change(client, user_id, list_hash(request_id), update))

    def close(self) -> None:
        """Do nothing: the guard owns the connection."""


def _change(client: Any, user_id: str, digest: bytes, update: Change[Result]) -> Result:
    import redis

    keys = [_redis_key(kind, name) for kind, name in _names(user_id, digest)]
    with client.pipeline() as pipe:
        while True:
            try:
                pipe.watch(*keys)
                before = _record(pipe.mget(keys))
                after, result = update(before)
                pipe.multi()
                if after is not before:
                    for key, value, seconds in zip(keys, _packed(after), _REDIS_SECONDS, strict=True):
                        pipe.set(key, value, ex=seconds)
                    for gone in _gone(before, after):
                        pipe.delete(_redis_key(*_names(user_id, gone)[-1]))
                pipe.execute()
            except redis.WatchError:
                continue
            return result


def _names(user_id: str, digest: bytes) -> list[tuple[str, str]]:
    """Kinds and names of a user's entries: the delta, the lists, and the rows of one list."""
    return [("delta", user_id), ("lists", user_id), ("rows", f"{digest.hex()}:{user_id}")]


def _record(values: Sequence[bytes | None]) -> UserRecord:
    delta, lists, rows = (None if value is None else msgpack.unpackb(value, strict_map_key=False) for value in values)
    return UserRecord(delta, tuple(lists or ()), rows)


def _packed(record: UserRecord) -> list[bytes]:
    return [msgpack.packb(part) for part in (record.delta, record.lists, record.rows)]


def _gone(before: UserRecord, after: UserRecord) -> set[bytes]:
    """Hashes of the lists that have left the window."""
    return {entry[0] for entry in before.lists} - {entry[0] for entry in after.lists}


def _redis_key(kind: str, name: str) -> str:
    return f"{KEY_PREFIX}:{kind}:{name}"


def _unpacked(value: bytes | None) -> Delta | None:
    return None if value is None else msgpack.unpackb(value, strict_map_key=False)

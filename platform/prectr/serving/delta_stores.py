"""Stores of user deltas: LMDB, shared by the replicas of one machine, or Redis for several machines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import lmdb
import msgpack

from prectr.features.store import store_key
from prectr.serving.redis_client import KEY_PREFIX, RedisGuard
from prectr.serving.user_delta import Delta

MAP_BYTES = 64 * 2**30
"""Reserved address space in bytes; the file grows only with its content."""
REDIS_SECONDS = 30 * 86_400
"""Seconds without an event after which Redis drops a user's delta; by then the published state holds its content."""

Change = Callable[[Delta | None], tuple[Delta, bool]]
"""Function of a user's delta (None: no delta) that returns the new delta and whether it differs."""


class UserDeltas(Protocol):
    """Store of the deltas of users."""

    def read(self, user_id: str) -> Delta | None:
        """Delta of a user; None without one."""

    def change(self, user_id: str, update: Change) -> tuple[Delta, bool]:
        """Apply `update` to a user's delta atomically and return its result."""

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

    def change(self, user_id: str, update: Change) -> tuple[Delta, bool]:
        """Apply `update` to a user's delta and return its result; other writers wait."""
        key = store_key("delta", user_id)
        with self._environment.begin(write=True) as transaction:
            delta, new = update(_unpacked(transaction.get(key)))
            if new:
                transaction.put(key, msgpack.packb(delta))
            return delta, new

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
        return _unpacked(self._guard.call(lambda client: client.get(_redis_key(user_id))))

    def change(self, user_id: str, update: Change) -> tuple[Delta, bool]:
        """Apply `update` to a user's delta and return its result; repeated if another writer changed it meanwhile."""
        return self._guard.call(lambda client: _change(client, _redis_key(user_id), update))

    def close(self) -> None:
        """Do nothing: the guard owns the connection."""


def _change(client: Any, key: str, update: Change) -> tuple[Delta, bool]:
    import redis

    with client.pipeline() as pipe:
        while True:
            try:
                pipe.watch(key)
                delta, new = update(_unpacked(pipe.get(key)))
                pipe.multi()
                if new:
                    pipe.set(key, msgpack.packb(delta), ex=REDIS_SECONDS)
                pipe.execute()
            except redis.WatchError:
                continue
            return delta, new


def _redis_key(user_id: str) -> str:
    return f"{KEY_PREFIX}:delta:{user_id}"


def _unpacked(value: bytes | None) -> Delta | None:
    return None if value is None else msgpack.unpackb(value, strict_map_key=False)

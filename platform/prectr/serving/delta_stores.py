"""Where users' deltas lie: LMDB on one machine, shared by its replicas, or Redis for several machines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import lmdb
import msgpack

from prectr.features.store import store_key
from prectr.serving.redis_client import KEY_PREFIX, RedisGuard
from prectr.serving.user_delta import Delta

MAP_BYTES = 64 * 2**30
"""Address space only; the file grows with what is written."""
REDIS_SECONDS = 30 * 86_400
"""A user's delta is forgotten after so long without an event: by then the published state holds it."""

Change = Callable[[Delta | None], tuple[Delta, bool]]


class UserDeltas(Protocol):
    """What became known of users."""

    def read(self, user_id: str) -> Delta | None:
        """A user's delta, None where there is none."""

    def change(self, user_id: str, how: Change) -> tuple[Delta, bool]:
        """Replace a user's delta by what `how` makes of it, as one step whatever else writes; gives its result."""

    def close(self) -> None:
        """Let go."""


class LmdbDeltas:
    """Deltas in a directory. A process that dies leaves whole deltas; a machine that loses power may lose the last."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._environment = lmdb.open(str(path), map_size=MAP_BYTES, subdir=True, sync=False, max_readers=512)

    def read(self, user_id: str) -> Delta | None:
        """A user's delta, None where there is none."""
        with self._environment.begin() as transaction:
            return _unpacked(transaction.get(store_key("delta", user_id)))

    def change(self, user_id: str, how: Change) -> tuple[Delta, bool]:
        """Replace a user's delta by what `how` makes of it; other writers wait."""
        key = store_key("delta", user_id)
        with self._environment.begin(write=True) as transaction:
            delta, new = how(_unpacked(transaction.get(key)))
            if new:
                transaction.put(key, msgpack.packb(delta))
            return delta, new

    def close(self) -> None:
        """Write what is in memory, and unmap."""
        self._environment.sync(True)
        self._environment.close()


class RedisDeltas:
    """Deltas in Redis.

    Raises:
        StoreDown: by every method, while Redis does not answer.
    """

    def __init__(self, guard: RedisGuard) -> None:
        self._guard = guard

    def read(self, user_id: str) -> Delta | None:
        """A user's delta, None where there is none."""
        return _unpacked(self._guard.call(lambda client: client.get(_redis_key(user_id))))

    def change(self, user_id: str, how: Change) -> tuple[Delta, bool]:
        """Replace a user's delta by what `how` makes of it; done again if somebody else wrote meanwhile."""
        return self._guard.call(lambda client: _change(client, _redis_key(user_id), how))

    def close(self) -> None:
        """The connection belongs to the guard."""


def _change(client: Any, key: str, how: Change) -> tuple[Delta, bool]:
    import redis

    with client.pipeline() as pipe:
        while True:
            try:
                pipe.watch(key)
                delta, new = how(_unpacked(pipe.get(key)))
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

"""Published states: what is known of users, queries, items and pairs, and how a reader notices a newer one.

LMDB   DIR/current.json names the version, DIR/VERSION/data.mdb holds it: replicas map the file read-only
Redis  prectr:current names the version, prectr:VERSION:KIND:NAME hold its entries

A version is written whole before it is named, so a reader sees the old one or the new one.
"""

import json
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgpack
from pydantic import BaseModel

from prectr.core.errors import PrectrError, UsageError
from prectr.features.store import FeatureStore, NamedEntry, OnlineStore, store_key
from prectr.ranking.bundle import Bundle
from prectr.serving.redis_client import KEY_PREFIX, RedisGuard, StoreDown

CURRENT = "current.json"
REDIS_CURRENT = f"{KEY_PREFIX}:current"
LOOK_SECONDS = 1.0
"""Between two looks for a newer version."""


class StateInfo(BaseModel):
    """What a published version is."""

    version: str
    identity: str
    """`Bundle.state_identity` of the bundles that read it."""
    tokenizer: str
    """Hash of the tokenizer that item titles were tokenised with."""
    as_of: float
    """Seconds since 1970 of the morning after the last day that it holds."""
    published: float
    entries: dict[str, int]


class State(FeatureStore):
    """A state and what it is."""

    info: StateInfo

    def refresh(self) -> bool:
        """Look for a newer version, now and then; whether one is read from now on."""
        return False

    def scan(self, kind: str, prefix: str = "", after: str = "", most: int = 1_000) -> list[NamedEntry]:
        """As `OnlineStore.scan`; nothing where a list would mean reading everything (Redis)."""
        return []


class _FileState(State):
    """One that lies in an LMDB file, here."""

    _store: OnlineStore

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """One entry, or None where nothing is known."""
        return self._store.get(kind, name)

    def get_many(self, kind: str, names: Iterable[str]) -> list[dict[str, Any] | None]:
        """Entries of one kind in one read transaction."""
        return self._store.get_many(kind, names)

    def scan(self, kind: str, prefix: str = "", after: str = "", most: int = 1_000) -> list[NamedEntry]:
        """As `OnlineStore.scan`."""
        return self._store.scan(kind, prefix, after, most)

    def close(self) -> None:
        """Unmap the file."""
        self._store.close()


class BundleState(_FileState):
    """The state in a bundle: always there, as old as the bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self._store = OnlineStore(bundle.path / "online")
        self.info = self.describe(bundle, self._store)

    @staticmethod
    def describe(bundle: Bundle, store: OnlineStore) -> StateInfo:
        """What the state in a bundle is; `entries` is left empty."""
        as_of = (store.get("meta", "") or {}).get("as_of", "1970-01-01")
        moment = datetime.fromisoformat(as_of).replace(tzinfo=UTC).timestamp()
        return StateInfo(
            version=bundle.version,
            identity=bundle.state_identity,
            tokenizer=bundle.tokenizer_identity,
            as_of=moment,
            published=moment,
            entries={},
        )


class LmdbState(_FileState):
    """What `prectr publish` wrote into a directory.

    Raises:
        UsageError: nothing was published there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.info = _current(path)
        self._store = OnlineStore(path / self.info.version)
        self._looked = time.monotonic()

    def refresh(self) -> bool:
        """Look for a newer version, now and then; whether one is read from now on."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        info = _current(self._path)
        if info.version == self.info.version:
            return False
        if info.identity != self.info.identity:
            return False  # of another model's specification: a bundle that reads it must be served first
        newer = OnlineStore(self._path / info.version)
        self._store.close()
        self._store, self.info = newer, info
        return True


class RedisState(State):
    """What `prectr publish` wrote into Redis.

    Raises:
        UsageError: nothing was published there.
        PrectrError: Redis does not answer.
    """

    def __init__(self, url: str, guard: RedisGuard) -> None:
        self._url, self._guard = url, guard
        try:
            info = self._read_info()
        except StoreDown as error:
            raise PrectrError(f"{url}: Redis does not answer ({error.__cause__}); start it, or mend the URL.") from None
        if info is None:
            raise UsageError(f"{url}: nothing was published there; run `prectr publish RANKER --to {url}`.")
        self.info = info
        self._looked = time.monotonic()

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """One entry, or None where nothing is known.

        Raises:
            StoreDown: Redis does not answer.
        """
        return self.get_many(kind, [name])[0]

    def get_many(self, kind: str, names: Iterable[str]) -> list[dict[str, Any] | None]:
        """Entries of one kind in one round trip.

        Raises:
            StoreDown: Redis does not answer.
        """
        keys = [redis_key(self.info.version, store_key(kind, name)) for name in names]
        if not keys:
            return []
        values = self._guard.call(lambda client: client.mget(keys))
        return [None if value is None else msgpack.unpackb(value) for value in values]

    def refresh(self) -> bool:
        """Look for a newer version, now and then; whether one is read from now on."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        try:
            info = self._read_info()
        except StoreDown:
            return False
        if info is None or info.version == self.info.version or info.identity != self.info.identity:
            return False
        self.info = info
        return True

    def close(self) -> None:
        """The connection belongs to the guard."""

    def _read_info(self) -> StateInfo | None:
        value = self._guard.call(lambda client: client.get(REDIS_CURRENT))
        return None if value is None else StateInfo.model_validate_json(value)


class FallbackState(State):
    """Redis, and while it is down the bundle's own state, without what that says of users: scores go on, without
    history.

    Attributes:
        degraded: whether anything was answered by the fallback since this was last set to False.
    """

    def __init__(self, state: RedisState, own: State) -> None:
        self._state, self._own = state, own
        self.info = state.info
        self.degraded = False
        self._was_down = False

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """One entry, or None where nothing is known."""
        return self.get_many(kind, [name])[0]

    def get_many(self, kind: str, names: Iterable[str]) -> list[dict[str, Any] | None]:
        """Entries of one kind."""
        names = list(names)
        try:
            return self._state.get_many(kind, names)
        except StoreDown:
            self.degraded = self._was_down = True
            return [None] * len(names) if kind == "user" else self._own.get_many(kind, names)

    def scan(self, kind: str, prefix: str = "", after: str = "", most: int = 1_000) -> list[NamedEntry]:
        """As `OnlineStore.scan`, of the bundle's own state: Redis has no list that is cheap."""
        return self._own.scan(kind, prefix, after, most)

    def refresh(self) -> bool:
        """Look for a newer version; also True when Redis is back, since what was read meanwhile is not its own."""
        newer = self._state.refresh()
        self.info = self._state.info
        if self._was_down and not self.degraded:
            try:
                self._state.get("total", "")
            except StoreDown:
                return newer
            self._was_down = False
            return True
        return newer

    def close(self) -> None:
        """Close both."""
        self._state.close()
        self._own.close()


def redis_key(version: str, key: bytes) -> bytes:
    """The key of an entry in Redis, by its key in LMDB."""
    return f"{KEY_PREFIX}:{version}:".encode() + key


def require_readable(state: State, bundle: Bundle, source: str) -> None:
    """Refuse a state whose numbers mean something else to the bundle.

    Raises:
        UsageError: it was published from a bundle of other samples.
    """
    if state.info.identity != bundle.state_identity or state.info.tokenizer != bundle.tokenizer_identity:
        raise UsageError(
            f"{source}: was published from a ranker of other samples than {bundle.path}; run `prectr publish "
            f"{bundle.path} --to {source}`, or serve a ranker of those samples."
        )


def _current(path: Path) -> StateInfo:
    try:
        content: Mapping[str, Any] = json.loads((path / CURRENT).read_text(encoding="utf-8"))
        return StateInfo.model_validate(content)
    except OSError:
        raise UsageError(f"{path}: nothing was published there; run `prectr publish RANKER --to {path}`.") from None
    except ValueError as error:
        raise PrectrError(f"{path / CURRENT}: cannot be read ({error}); publish again.") from None

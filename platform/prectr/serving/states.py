"""Published states: features of users, queries, items and pairs, and the change of a reader to a newer version.

LMDB   DIR/current.json names the version, DIR/VERSION/data.mdb holds it; replicas map the file read-only
Redis  prectr:current names the version, prectr:VERSION:KIND:NAME hold its entries

A version is written completely before it is named, so a reader sees either the old version or the new one.
"""

import json
import logging
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgpack
from pydantic import BaseModel

from prectr.core.errors import PrectrError, UsageError, shorten
from prectr.core.text import NORMAL_FORM
from prectr.features.store import FeatureStore, NamedEntry, OnlineStore, store_key
from prectr.ranking.bundle import Bundle
from prectr.serving.redis_client import KEY_PREFIX, RedisGuard, StoreDown

CURRENT = "current.json"
REDIS_CURRENT = f"{KEY_PREFIX}:current"
STATE_SCHEMA = 1
"""Schema version of published states. Raise it when the form or meaning of their entries changes."""
LOOK_SECONDS = 1.0
"""Seconds between checks for a newer version."""

logger = logging.getLogger("ray.serve")


class StateInfo(BaseModel):
    """Description of a published version."""

    version: str
    """Name of the version; later versions sort after earlier ones."""
    identity: str
    """`Bundle.state_identity` of the bundles that can read it."""
    tokenizer: str
    """Hash of the tokenizer of the item titles."""
    schema_version: int = 0
    """Version of the entries' form (`STATE_SCHEMA`); 0 if it was published before versions were recorded."""
    normal_form: int = 1
    """Version of the normal form of its queries (`prectr.core.text.NORMAL_FORM`); only form 1 was not named."""
    as_of: float
    """End of the last day that it holds, in seconds since 1970."""
    published: float
    """Time of publication, in seconds since 1970."""
    entries: dict[str, int]
    """Kind -> number of entries."""

    def may_follow(self, served: "StateInfo") -> bool:
        """Whether a server may change to this version: a new one that the same bundles can read."""
        forms = [(info.identity, info.schema_version, info.normal_form) for info in (self, served)]
        return self.version != served.version and forms[0] == forms[1]


class State(FeatureStore):
    """A state with its description."""

    info: StateInfo

    def refresh(self) -> bool:
        """Check for a newer version at intervals; True if the state has changed to one."""
        return False

    def scan(self, kind: str, prefix: str = "", after: str = "", most: int = 1_000) -> list[NamedEntry]:
        """Entries of a kind as `OnlineStore.scan`; none from Redis, where a scan would read all entries."""
        return []


class _FileState(State):
    """A state in a local LMDB file."""

    _store: OnlineStore

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """One entry; None if it does not exist."""
        return self._store.get(kind, name)

    def get_many(self, kind: str, names: Iterable[str]) -> list[dict[str, Any] | None]:
        """Entries of one kind in one read transaction."""
        return self._store.get_many(kind, names)

    def scan(self, kind: str, prefix: str = "", after: str = "", most: int = 1_000) -> list[NamedEntry]:
        """Entries of a kind as `OnlineStore.scan`."""
        return self._store.scan(kind, prefix, after, most)

    def close(self) -> None:
        """Unmap the file."""
        self._store.close()


class BundleState(_FileState):
    """The state in a bundle: always available, as old as the bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self._store = bundle.open_state()
        self.info = self.describe(bundle, self._store)

    @staticmethod
    def describe(bundle: Bundle, store: OnlineStore) -> StateInfo:
        """Describe the state in a bundle; `entries` stays empty."""
        as_of = (store.get("meta", "") or {}).get("as_of", "1970-01-01")
        moment = datetime.fromisoformat(as_of).replace(tzinfo=UTC).timestamp()
        return StateInfo(
            version=bundle.version,
            identity=bundle.state_identity,
            tokenizer=bundle.tokenizer_identity,
            schema_version=STATE_SCHEMA,
            normal_form=NORMAL_FORM,
            as_of=moment,
            published=moment,
            entries={},
        )


class LmdbState(_FileState):
    """A state that `prectr publish` wrote into a directory.

    Raises:
        UsageError: the directory holds no published state.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.info = _current(path)
        self._store = OnlineStore(path / self.info.version)
        self._last_check = time.monotonic()

    def refresh(self) -> bool:
        """Check for a newer version at intervals; True if the state has changed to one."""
        if time.monotonic() - self._last_check < LOOK_SECONDS:
            return False
        self._last_check = time.monotonic()
        try:
            info = _current(self._path)
        except PrectrError as error:
            logger.error("the state is not changed: %s", error)
            return False
        if not info.may_follow(self.info):  # if its feature specification differs, serve a bundle of it first
            return False
        newer = OnlineStore(self._path / info.version)
        self._store.close()
        self._store, self.info = newer, info
        return True


class RedisState(State):
    """A state that `prectr publish` wrote into Redis.

    Raises:
        UsageError: Redis holds no published state.
        PrectrError: Redis does not answer.
    """

    def __init__(self, url: str, guard: RedisGuard) -> None:
        self._url, self._guard = url, guard
        try:
            info = self._read_info()
        except StoreDown as error:
            raise PrectrError(f"{url}: Redis does not answer ({error.__cause__}); start it or fix the URL.") from None
        if info is None:
            raise UsageError(f"{url}: nothing was published there; run `prectr publish RANKER --to {url}`.")
        self.info = info
        self._last_check = time.monotonic()

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """One entry; None if it does not exist.

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
        """Check for a newer version at intervals; True if the state has changed to one."""
        if time.monotonic() - self._last_check < LOOK_SECONDS:
            return False
        self._last_check = time.monotonic()
        try:
            info = self._read_info()
        except StoreDown:
            return False
        except PrectrError as error:
            logger.error("the state is not changed: %s", error)
            return False
        if info is None or not info.may_follow(self.info):
            return False
        self.info = info
        return True

    def close(self) -> None:
        """Do nothing: the guard owns the connection."""

    def _read_info(self) -> StateInfo | None:
        value = self._guard.call(lambda client: client.get(REDIS_CURRENT))
        try:
            return None if value is None else StateInfo.model_validate_json(value)
        except ValueError as error:
            raise PrectrError(f"{REDIS_CURRENT}: cannot be read ({shorten(error)}); publish again.") from None


class FallbackState(State):
    """The state in Redis, and while Redis is down the bundle's state without its users.

    Scoring so continues without the users' history, which in the bundle may be old.

    Args:
        redis_state: published state.
        bundle_state: state in the bundle.

    Attributes:
        degraded: whether the fallback has answered since this was last set to False.
    """

    def __init__(self, redis_state: RedisState, bundle_state: State) -> None:
        self._redis_state, self._bundle_state = redis_state, bundle_state
        self.info = redis_state.info
        self.degraded = False
        self._was_down = False

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """One entry; None if it does not exist."""
        return self.get_many(kind, [name])[0]

    def get_many(self, kind: str, names: Iterable[str]) -> list[dict[str, Any] | None]:
        """Entries of one kind."""
        names = list(names)
        try:
            return self._redis_state.get_many(kind, names)
        except StoreDown:
            self.degraded = self._was_down = True
            return [None] * len(names) if kind == "user" else self._bundle_state.get_many(kind, names)

    def scan(self, kind: str, prefix: str = "", after: str = "", most: int = 1_000) -> list[NamedEntry]:
        """Entries of a kind in the bundle's state as `OnlineStore.scan`; a scan of Redis would read all entries."""
        return self._bundle_state.scan(kind, prefix, after, most)

    def refresh(self) -> bool:
        """Check for a newer version; also True when Redis is back, because cached entries came from the bundle."""
        newer = self._redis_state.refresh()
        self.info = self._redis_state.info
        if self._was_down and not self.degraded:
            try:
                self._redis_state.get("total", "")
            except StoreDown:
                return newer
            self._was_down = False
            return True
        return newer

    def close(self) -> None:
        """Close both states."""
        self._redis_state.close()
        self._bundle_state.close()


def redis_key(version: str, key: bytes) -> bytes:
    """Key of an entry in Redis from its key in LMDB."""
    return f"{KEY_PREFIX}:{version}:".encode() + key


def require_readable(state: State, bundle: Bundle, source: str) -> None:
    """Check that a bundle can read a state: same versions, feature specification, preferences and tokenizer.

    Args:
        state: the state.
        bundle: the bundle.
        source: address of the state, for the message.

    Raises:
        UsageError: the state was published from a bundle of other samples, or it has another schema version or normal
            form of queries.
    """
    info, again = state.info, f"run `prectr publish {bundle.path} --to {source}` again."
    if info.schema_version != STATE_SCHEMA:
        raise UsageError(
            f"{source}: the state has schema version {info.schema_version}, this release reads version {STATE_SCHEMA}; "
            f"{again}"
        )
    if info.normal_form != NORMAL_FORM:
        raise UsageError(
            f"{source}: its queries have normal form {info.normal_form}, this release reads form {NORMAL_FORM}; {again}"
        )
    if info.identity != bundle.state_identity or info.tokenizer != bundle.tokenizer_identity:
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
        raise PrectrError(f"{path / CURRENT}: cannot be read ({shorten(error)}); publish again.") from None

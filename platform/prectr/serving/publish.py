"""Writing a state where servers read it: whole first, then named, so that a reader never sees half of one."""

import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgpack

from prectr.core.errors import PrectrError
from prectr.features.store import OnlineStore, kind_of, write_keys
from prectr.ranking.bundle import Bundle
from prectr.relevance.tokenisation import PairTokeniser
from prectr.serving.redis_client import KEY_PREFIX, RedisGuard, StoreDown
from prectr.serving.states import CURRENT, REDIS_CURRENT, BundleState, StateInfo, redis_key

REDIS_URLS = ("redis://", "rediss://")
KEPT_VERSIONS = 2
"""In a directory: readers of the one before are given time to move."""
OLD_SECONDS = 600
"""After which Redis forgets the version before."""
CHUNK = 2_000
"""Entries of a call."""
PATIENCE_SECONDS = 30.0

Entries = Iterator[tuple[bytes, dict[str, Any]]]


def publish(bundle: Bundle, target: str, advance: Callable[[int], None]) -> StateInfo:
    """Publish a bundle's state, with item titles tokenised.

    Args:
        bundle: whose state.
        target: a directory, or redis://HOST:PORT/DB.
        advance: told how many entries were written.

    Raises:
        UsageError: the address is none.
        PrectrError: Redis does not answer.
    """
    store = bundle.open_state()
    try:
        own = _info(bundle, store)
        entries = _counted(_with_tokens(store.entries(), bundle), own.entries, advance)
        write = _to_redis if target.startswith(REDIS_URLS) else _to_directory
        return write(target, entries, own)
    finally:
        store.close()


def state_size(bundle: Bundle) -> int:
    """Entries of a bundle's state."""
    store = bundle.open_state()
    try:
        return len(store)
    finally:
        store.close()


def _info(bundle: Bundle, store: OnlineStore) -> StateInfo:
    now = datetime.now(UTC)
    version = f"{now:%Y%m%dT%H%M%S.%f}-{os.getpid()}"  # sorts by time, and no process publishes twice in a microsecond
    return BundleState.describe(bundle, store).model_copy(update={"version": version, "published": now.timestamp()})


def _with_tokens(entries: Entries, bundle: Bundle) -> Entries:
    """Items get the token ids of their titles, int32 bytes."""
    max_length = json.loads((bundle.path / "relevance" / "relevance.json").read_text(encoding="utf-8"))["max_length"]
    tokeniser = PairTokeniser.load(bundle.path / "relevance", max_length)
    while chunk := list(itertools.islice(entries, CHUNK)):
        items = [value for key, value in chunk if kind_of(key) == "item"]
        for value, ids in zip(items, tokeniser.ids([value["title"] for value in items]), strict=True):
            value["tokens"] = ids.tobytes()
        yield from chunk


def _counted(entries: Entries, counts: dict[str, int], advance: Callable[[int], None]) -> Entries:
    for key, value in entries:
        kind = kind_of(key)
        counts[kind] = counts.get(kind, 0) + 1
        advance(1)
        yield key, value


def _to_directory(target: str, entries: Entries, info: StateInfo) -> StateInfo:
    path = Path(target)
    path.mkdir(parents=True, exist_ok=True)
    aside = path / f".{info.version}"
    try:
        write_keys(aside, entries)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    os.replace(aside, path / info.version)
    pointer = path / f".{CURRENT}.{os.getpid()}"
    pointer.write_text(info.model_dump_json(indent=1), encoding="utf-8")
    os.replace(pointer, path / CURRENT)
    versions = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    for old in versions[:-KEPT_VERSIONS]:
        shutil.rmtree(old, ignore_errors=True)
    return info


def _to_redis(target: str, entries: Entries, info: StateInfo) -> StateInfo:
    guard = RedisGuard(target, PATIENCE_SECONDS, retry_seconds=0.0)
    try:
        while chunk := list(itertools.islice(entries, CHUNK)):
            values = {redis_key(info.version, key): msgpack.packb(value) for key, value in chunk}
            guard.call(lambda client, values=values: client.mset(values))  # type: ignore[misc]
        before = guard.call(lambda client: client.getset(REDIS_CURRENT, info.model_dump_json()))
        if before is not None:
            _forget(guard, StateInfo.model_validate_json(before).version)
    except StoreDown as error:
        raise PrectrError(
            f"{target}: Redis does not answer ({error.__cause__}); nothing that is served has changed."
        ) from None
    finally:
        guard.close()
    return info


def _forget(guard: RedisGuard, version: str) -> None:
    """Let the entries of a version expire."""

    def expire(client: Any) -> None:
        keys = client.scan_iter(match=f"{KEY_PREFIX}:{version}:*", count=CHUNK)
        while chunk := list(itertools.islice(keys, CHUNK)):
            with client.pipeline(transaction=False) as pipe:
                for key in chunk:
                    pipe.expire(key, OLD_SECONDS)
                pipe.execute()

    guard.call(expire)

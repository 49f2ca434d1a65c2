"""Published states: LMDB swapped under its readers, and a real Redis, down and back."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from prectr.core.errors import PrectrError, UsageError
from prectr.core.text import NORMAL_FORM
from prectr.preferences.sums import USER_NAMES
from prectr.preferences.tolerance import log_likelihood_table
from prectr.ranking.bundle import Bundle
from prectr.ranking.features import OnlineFeatures
from prectr.relevance.encoder_session import RelevanceEncoder
from prectr.serving import states
from prectr.serving.delta_stores import RedisDeltas
from prectr.serving.publish import publish, state_size
from prectr.serving.redis_client import RedisGuard, StoreDown
from prectr.serving.states import STATE_SCHEMA, BundleState, FallbackState, LmdbState, RedisState, require_readable
from prectr.serving.user_delta import SeenItem, SeenList, UserRecord, add_list, list_hash
from tests.prectr.bundle_world import World
from tests.redis_server import RedisServer


@pytest.fixture
def bundle(world: World) -> Bundle:
    return Bundle.open(world.bundle)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "LOOK_SECONDS", 0.0)


def _nothing(_: int) -> None:
    return None


def _same_features(bundle: Bundle, state: states.State) -> None:
    """Features read from `state` are those of the bundle's own state."""
    encoder = RelevanceEncoder(bundle.path / "relevance")
    bundle_state = BundleState(bundle)
    actual, expected = (
        OnlineFeatures(bundle, encoder, source).request("u0", "nokia 3310", ["i0", "i3", "i1"], 1.8e9)
        for source in (state, bundle_state)
    )
    bundle_state.close()
    for name in ("categorical", "numeric", "tolerance", "query_preference"):
        np.testing.assert_array_equal(getattr(actual.rows, name), getattr(expected.rows, name))
    np.testing.assert_array_equal(actual.tokens.values, expected.tokens.values)
    assert actual.user_known and actual.sources == expected.sources


def test_lmdb_holds_what_the_bundle_holds(bundle: Bundle, tmp_path: Path) -> None:
    counted: list[int] = []
    info = publish(bundle, str(tmp_path), counted.append)
    assert sum(info.entries.values()) == len(counted) == state_size(bundle)
    assert info.entries["item"] == 5 and info.entries["pair"] == 15 and info.identity == bundle.state_identity
    state = LmdbState(tmp_path)
    require_readable(state, bundle, str(tmp_path))
    assert state.info == info and "tokens" in (state.get("item", "i0") or {})
    _same_features(bundle, state)
    state.close()


def test_a_reader_moves_to_a_newer_version_and_old_ones_go(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = []
    for number in range(3):
        monkeypatch.setattr("prectr.serving.publish.os.getpid", lambda number=number: 1000 + number)
        versions.append(publish(bundle, str(tmp_path), _nothing).version)
        if number == 0:
            state = LmdbState(tmp_path)
            assert not state.refresh()
        elif number == 1:
            assert state.get("item", "i0") is not None, "the old version is still mapped"
            assert state.refresh() and not state.refresh()
            assert state.info.version == versions[1] and state.get("item", "i0") is not None
    folders = {folder.name for folder in tmp_path.iterdir() if folder.is_dir()}
    assert folders == set(versions[1:])
    state.close()


def test_a_publication_that_breaks_off_changes_nothing(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = publish(bundle, str(tmp_path), _nothing)

    def full(done: int) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        publish(bundle, str(tmp_path), full)
    state = LmdbState(tmp_path)
    assert state.info == before and not list(tmp_path.glob(".2*"))
    state.close()


def test_a_state_of_other_samples_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    publish(bundle, str(tmp_path), _nothing)
    content = json.loads((tmp_path / "current.json").read_text())
    (tmp_path / "current.json").write_text(json.dumps(content | {"identity": "another"}))
    state = LmdbState(tmp_path)
    with pytest.raises(UsageError, match=r"was published from a ranker of other samples .*prectr publish"):
        require_readable(state, bundle, str(tmp_path))
    state.close()


@pytest.mark.parametrize(
    ("name", "now", "message"),
    [
        ("normal_form", NORMAL_FORM, "normal form 1, this release reads form 2"),
        ("schema_version", STATE_SCHEMA, "schema version 0, this release reads version 1"),
    ],
)
def test_a_state_of_another_version_is_refused(
    bundle: Bundle, tmp_path: Path, name: str, now: int, message: str
) -> None:
    publish(bundle, str(tmp_path), _nothing)
    file = tmp_path / "current.json"
    content = json.loads(file.read_text())
    assert content.pop(name) == now
    file.write_text(json.dumps(content))
    state = LmdbState(tmp_path)
    with pytest.raises(UsageError, match=f"{message}; run `prectr publish .* again"):
        require_readable(state, bundle, str(tmp_path))
    state.close()


def test_a_server_changes_only_to_a_newer_state_that_its_bundles_can_read(bundle: Bundle, tmp_path: Path) -> None:
    served = publish(bundle, str(tmp_path), _nothing)
    newer = served.model_copy(update={"version": "newer"})
    assert newer.may_follow(served) and not served.may_follow(served)
    for name in ("normal_form", "schema_version"):
        assert not newer.model_copy(update={name: getattr(newer, name) + 1}).may_follow(served)
    assert not newer.model_copy(update={"identity": "another"}).may_follow(served)


def test_a_directory_without_a_state_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing was published there; run `prectr publish"):
        LmdbState(tmp_path)
    (tmp_path / "current.json").write_text("{")
    with pytest.raises(PrectrError, match=r"current\.json: cannot be read .*publish again"):
        LmdbState(tmp_path)


def test_redis_holds_what_the_bundle_holds(bundle: Bundle, redis_server: RedisServer) -> None:
    info = publish(bundle, redis_server.url, _nothing)
    guard = RedisGuard(redis_server.url, 5.0, 0.0)
    state = RedisState(redis_server.url, guard)
    assert state.info == info
    _same_features(bundle, state)
    newer = publish(bundle, redis_server.url, _nothing)
    assert state.refresh() == (newer.version != info.version)
    _same_features(bundle, state)
    if newer.version != info.version:
        ttl = guard.call(lambda client: client.ttl(states.redis_key(info.version, b"item:i0")))
        assert 0 < ttl <= 600, "the version before expires"
    guard.close()


def test_while_redis_is_down_the_bundle_answers_without_history(bundle: Bundle, redis_server: RedisServer) -> None:
    publish(bundle, redis_server.url, _nothing)
    guard = RedisGuard(redis_server.url, 0.2, retry_seconds=0.3)
    state = FallbackState(RedisState(redis_server.url, guard), BundleState(bundle))
    assert state.get("user", "u0") is not None and not state.degraded
    redis_server.stop()
    assert state.get("user", "u0") is None and state.degraded
    assert (state.get("item", "i0") or {})["title"]
    asked = time.perf_counter()
    for _ in range(100):
        state.get("item", "i0")
    assert time.perf_counter() - asked < 0.2, "while it is down nobody waits for it"
    state.degraded = False
    redis_server.start()
    deadline = time.monotonic() + 10
    while state.get("user", "u0") is None and time.monotonic() < deadline:
        time.sleep(0.05)
    state.degraded = False
    assert state.get("user", "u0") is not None and not state.degraded
    assert state.refresh(), "what was read meanwhile is not Redis' own"
    state.close()
    guard.close()


def test_a_redis_that_does_not_answer_is_reported(bundle: Bundle) -> None:
    url = "redis://127.0.0.1:1/0"
    with pytest.raises(PrectrError, match=r"^redis://127\.0\.0\.1:1/0: Redis does not answer .*start it"):
        RedisState(url, RedisGuard(url, 0.2, 0.0))
    with pytest.raises(UsageError, match=r"not a Redis address; write redis://HOST"):
        RedisGuard("redes://x", 0.2, 0.0)


def test_an_empty_redis_is_reported(redis_server: RedisServer) -> None:
    with pytest.raises(UsageError, match="nothing was published there"):
        RedisState(redis_server.url, RedisGuard(redis_server.url, 5.0, 0.0))


def test_two_writers_of_a_user_lose_nothing(bundle: Bundle, redis_server: RedisServer) -> None:
    preferences = bundle.preferences
    table = log_likelihood_table(preferences.click, preferences.examination.exponent)
    first, second = (RedisDeltas(RedisGuard(redis_server.url, 5.0, 0.0)) for _ in range(2))
    calls = []

    def seen(name: str) -> SeenList:
        return SeenList(name, 5.0, [SeenItem("i0", 1, True, 100, "", "", None, [1, 2, 3, 4, 5])])

    def add(record: UserRecord, name: str) -> tuple[UserRecord, str]:
        return add_list(record, seen(name), table, "s", now=5.0)

    def slowly(record: UserRecord) -> tuple[UserRecord, str]:
        calls.append(record)
        if len(calls) == 1:  # another replica writes between our reading and writing
            second.change("u", "b", lambda inner: add(inner, "b"))
        return add(record, "a")

    assert first.change("u", "a", slowly) == "new"
    assert len(calls) == 2
    digests = first.change("u", "c", lambda record: (record, [entry[0] for entry in record.lists]))
    assert digests == [list_hash("b"), list_hash("a")]
    delta = second.read("u")
    assert delta is not None and delta["days"][0]["sums"][USER_NAMES.index("requests")] == 2
    with pytest.raises(StoreDown):
        RedisDeltas(RedisGuard("redis://127.0.0.1:1/0", 0.2, 0.0)).read("u")

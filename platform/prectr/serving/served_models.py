"""Models of a service: loading a bundle and its state, checking its golden requests, and releasing it."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prectr.core.errors import UsageError
from prectr.ranking.bundle import ONLINE_FILE, Bundle
from prectr.ranking.candidates import CacheBytes
from prectr.ranking.drift import Drift
from prectr.ranking.features import UserReader
from prectr.ranking.golden import GoldenScores, golden_scores, require_golden
from prectr.ranking.ranking import Ranking
from prectr.ranking.scoring import Scorer
from prectr.serving.config import ModelsConfig, ServeConfig
from prectr.serving.delta_stores import UserDeltas
from prectr.serving.redis_client import RedisGuard, StoreDown
from prectr.serving.states import BundleState, FallbackState, LmdbState, RedisState, State, require_readable
from prectr.serving.user_delta import EventLimits, EventReader, merged


@dataclass(frozen=True)
class ServedModel:
    """A loaded model. All of it is in memory or mapped, so its directory may be deleted."""

    name: str
    bundle: Bundle
    ranking: Ranking
    events: EventReader
    drift: Drift
    state: State
    """State that its features are read from."""
    bundle_state: State
    """State in the bundle, which the golden requests are scored with."""
    bundle_state_key: tuple[int, int]
    """Device and inode of the bundle's state file."""
    golden: GoldenScores


class ModelLoader:
    """Loads models with their features and user deltas.

    Args:
        config: settings of serving.
        deltas: user deltas from events.
        guard: client of Redis; None if features are not in Redis.
    """

    def __init__(self, config: ServeConfig, deltas: UserDeltas, guard: RedisGuard | None) -> None:
        self._config, self._deltas, self._guard = config, deltas, guard
        self._states: dict[Any, tuple[State, int]] = {}
        """Open states with the number of models that read each; the published one stays open."""
        self._lock = threading.Lock()
        self._degraded: set[str] = set()

    def load(self, models: ModelsConfig, before: Mapping[str, ServedModel]) -> dict[str, ServedModel]:
        """Load all models of a configuration; models that are served already are reused.

        Args:
            models: the configuration.
            before: models that are served now, by name.

        Raises:
            UsageError: `models` names no bundle, a path holds none, a bundle has no int8 form, or the published
                features come from other samples.
            PrectrError: a golden request does not score as it did in training, or Redis does not answer.
        """
        loaded: dict[str, ServedModel] = {}
        opened: list[ServedModel] = []
        try:
            for name, path in models.bundles.items():
                served, bundle = before.get(name), Bundle.open(path)
                if served is not None and served.bundle.path == path and served.bundle.version == bundle.version:
                    loaded[name] = served
                    continue
                if any(
                    model.bundle.path == path and model.bundle.version != bundle.version for model in before.values()
                ):
                    raise UsageError(
                        f"{path}: was replaced while the earlier version is served from this directory; put each "
                        "version into a new directory, or restart the server."
                    )
                loaded[name] = self._load_model(name, bundle)
                opened.append(loaded[name])
        except BaseException:
            self.close(opened)
            raise
        if not loaded:
            raise UsageError("serve.models.bundles: is empty; name at least one bundle to serve.")
        return loaded

    def check(self, models: Sequence[ServedModel]) -> None:
        """Score the golden requests of models again.

        Raises:
            PrectrError: a golden request does not score as it did in training.
        """
        for model in models:
            ranking = Ranking(model.ranking.scorer, store=model.bundle_state, users=model.golden.users.get)
            require_golden(model.golden, ranking, self._config.int8, model.name)

    def take_degraded(self) -> list[str]:
        """Sources that were not available since the last call: `events`, `features`."""
        degraded = sorted(self._degraded)
        self._degraded.clear()
        return degraded

    def close(self, models: Sequence[ServedModel]) -> None:
        """Release models that are no longer used."""
        for model in models:
            self._release_state(model.bundle_state_key)

    def close_all(self) -> None:
        """Close all states."""
        for state, _ in self._states.values():
            state.close()
        self._states.clear()

    def _load_model(self, name: str, bundle: Bundle) -> ServedModel:
        config = self._config
        key, bundle_state = self._bundle_state(bundle)
        try:
            state, golden = self._feature_state(bundle, bundle_state), golden_scores(bundle.path)
            scorer = Scorer(bundle, config.threads, config.int8, int(config.cache_text_mib * 2**20))
            checked = Ranking(scorer, store=bundle_state, users=golden.users.get)
            require_golden(golden, checked, config.int8, str(bundle.path))
            ranking = Ranking(
                scorer,
                store=state,
                users=self._user_reader(bundle, state, golden.users if config.playground else {}),
                cache_bytes=CacheBytes(int(config.cache_pools_mib * 2**20), int(config.cache_items_mib * 2**20)),
                degraded=self.take_degraded,
            )
            reader, drift = EventReader(bundle, ranking.features), Drift(bundle.path)
            return ServedModel(name, bundle, ranking, reader, drift, state, bundle_state, key, golden)
        except BaseException:
            self._release_state(key)
            raise

    def _bundle_state(self, bundle: Bundle) -> tuple[tuple[int, int], State]:
        """Key and state of a bundle. Bundles of the same samples link to one file, which is mapped once."""
        file = (bundle.path / ONLINE_FILE).stat()
        key = (file.st_dev, file.st_ino)
        with self._lock:
            state, readers = self._states.get(key) or (BundleState(bundle), 0)
            self._states[key] = (state, readers + 1)
        return key, state

    def _release_state(self, key: tuple[int, int]) -> None:
        with self._lock:
            state, readers = self._states[key]
            self._states[key] = (state, readers - 1)
            if readers == 1:
                del self._states[key]
                state.close()

    def _feature_state(self, bundle: Bundle, bundle_state: State) -> State:
        """State that a bundle's features are read from: the published one, or the bundle's."""
        source = self._config.features
        if source is None:
            return bundle_state
        if source not in self._states:
            published: State = RedisState(source, self._guard) if self._guard else LmdbState(Path(source))
            self._states[source] = (published, 1)
        published, _ = self._states[source]
        require_readable(published, bundle, source)
        return FallbackState(published, bundle_state) if isinstance(published, RedisState) else published

    def _user_reader(self, bundle: Bundle, state: State, made_up: Mapping[str, dict[str, Any]]) -> UserReader:
        """Function that reads a user's entry with the delta added; `made_up` has the users of the playground."""
        limits = EventLimits(ahead_hours=self._config.event_ahead_hours)

        def read(user_id: str) -> dict[str, Any] | None:
            entry = state.get("user", user_id) or made_up.get(user_id)
            if isinstance(state, FallbackState) and state.degraded:
                self._degraded.add("features")
                state.degraded = False
            try:
                delta = self._deltas.read(user_id)
            except StoreDown:
                self._degraded.add("events")
                delta = None
            return merged(entry, delta, bundle.state_identity, state.info.as_of, limits.latest(time.time()))

        return read

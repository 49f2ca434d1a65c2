"""Loading the models that a service answers with: bundle, state, golden requests, and letting go of them again."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prectr.core.errors import UsageError
from prectr.ranking.bundle import ONLINE_FILE, Bundle
from prectr.ranking.drift import Drift
from prectr.ranking.features import UserReader
from prectr.ranking.golden import GoldenScores, golden_scores, require_golden
from prectr.ranking.ranking import Ranking
from prectr.ranking.scoring import Scorer
from prectr.serving.config import ModelsConfig, ServeConfig
from prectr.serving.delta_stores import UserDeltas
from prectr.serving.events import EventReader
from prectr.serving.redis_client import RedisGuard, StoreDown
from prectr.serving.states import BundleState, FallbackState, LmdbState, RedisState, State, require_readable
from prectr.serving.user_delta import merged


@dataclass(frozen=True)
class ServedModel:
    """A model that is ready to answer. All of it is in memory or mapped: its directory may go."""

    name: str
    bundle: Bundle
    ranking: Ranking
    events: EventReader
    drift: Drift
    state: State
    """What its features are read from."""
    own: State
    """The state in the bundle, which its golden requests are scored with."""
    own_key: tuple[int, int]
    golden: GoldenScores


class ModelLoader:
    """Loads models, with their features and what events told of users.

    Args:
        config: of serving.
        deltas: what events told.
        guard: of Redis, where features come from there.
    """

    def __init__(self, config: ServeConfig, deltas: UserDeltas, guard: RedisGuard | None) -> None:
        self._config, self._deltas, self._guard = config, deltas, guard
        self._states: dict[Any, tuple[State, int]] = {}
        """Open states and how many models read each; the published one stays open."""
        self._lock = threading.Lock()
        self._without: set[str] = set()

    def load(self, models: ModelsConfig, before: Mapping[str, ServedModel]) -> dict[str, ServedModel]:
        """All models of a configuration; those that are served already are taken over.

        Raises:
            UsageError: no bundle, no int8 form, features of other samples, or no bundle is named.
            PrectrError: a bundle does not score as it did when it was published, or Redis does not answer.
        """
        loaded: dict[str, ServedModel] = {}
        opened: list[ServedModel] = []
        try:
            for name, path in models.bundles.items():
                known, bundle = before.get(name), Bundle.open(path)
                if known is not None and known.bundle.path == path and known.bundle.version == bundle.version:
                    loaded[name] = known
                    continue
                if any(
                    model.bundle.path == path and model.bundle.version != bundle.version for model in before.values()
                ):
                    raise UsageError(
                        f"{path}: was replaced where it lies while the ranker before is served from there; give each "
                        "version a directory of its own, or start the server again."
                    )
                loaded[name] = self._load_model(name, bundle)
                opened.append(loaded[name])
        except BaseException:
            self.close(opened)
            raise
        if not loaded:
            raise UsageError("serve.models.bundles: names no bundle; there is nothing to serve.")
        return loaded

    def check(self, models: Sequence[ServedModel]) -> None:
        """Score the golden requests of models once more.

        Raises:
            PrectrError: one does not score as it did.
        """
        for model in models:
            require_golden(model.golden, Ranking(model.ranking.scorer, store=model.own), self._config.int8, model.name)

    def take_without(self) -> list[str]:
        """What could not be had since this was last asked: features, events."""
        without = sorted(self._without)
        self._without.clear()
        return without

    def close(self, models: Sequence[ServedModel]) -> None:
        """Let go of models that nothing is scored with any more."""
        for model in models:
            self._release_state(model.own_key)

    def close_all(self) -> None:
        """Let go of every state."""
        for state, _ in self._states.values():
            state.close()
        self._states.clear()

    def _load_model(self, name: str, bundle: Bundle) -> ServedModel:
        config = self._config
        key, own = self._own_state(bundle)
        try:
            state, golden = self._state_of(bundle, own), golden_scores(bundle.path)
            scorer = Scorer(bundle, config.threads, config.int8, config.cached_pairs)
            require_golden(golden, Ranking(scorer, store=own), config.int8, str(bundle.path))
            ranking = Ranking(
                scorer,
                store=state,
                users=self._users_of(bundle, state),
                cached_pools=config.cached_pools,
                degraded=self.take_without,
            )
            reader, drift = EventReader(bundle, ranking.features), Drift(bundle.path)
            return ServedModel(name, bundle, ranking, reader, drift, state, own, key, golden)
        except BaseException:
            self._release_state(key)
            raise

    def _own_state(self, bundle: Bundle) -> tuple[tuple[int, int], State]:
        """The state in a bundle, and by what it is let go. Bundles of the same samples are links to one file, which is
        mapped once."""
        file = (bundle.path / ONLINE_FILE).stat()
        key = (file.st_dev, file.st_ino)
        with self._lock:
            state, users = self._states.get(key) or (BundleState(bundle), 0)
            self._states[key] = (state, users + 1)
        return key, state

    def _release_state(self, key: tuple[int, int]) -> None:
        with self._lock:
            state, users = self._states[key]
            self._states[key] = (state, users - 1)
            if users == 1:
                del self._states[key]
                state.close()

    def _state_of(self, bundle: Bundle, own: State) -> State:
        source = self._config.features
        if source is None:
            return own
        if source not in self._states:
            published: State = RedisState(source, self._guard) if self._guard else LmdbState(Path(source))
            self._states[source] = (published, 1)
        published, _ = self._states[source]
        require_readable(published, bundle, source)
        return FallbackState(published, own) if isinstance(published, RedisState) else published

    def _users_of(self, bundle: Bundle, state: State) -> UserReader:
        def read(user_id: str) -> dict[str, Any] | None:
            known = state.get("user", user_id)
            if isinstance(state, FallbackState) and state.degraded:
                self._without.add("features")
                state.degraded = False
            try:
                delta = self._deltas.read(user_id)
            except StoreDown:
                self._without.add("events")
                delta = None
            return merged(known, delta, bundle.state_identity, state.info.as_of)

        return read

"""Features of a request as of now, from the online state; they use the same `RawState` and `derive` as offline."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from prectr.features.derive import SOURCES, RawState, derive
from prectr.features.inputs import Behaviours, Histories, PairArrays, RowArrays, stack
from prectr.features.store import FeatureStore
from prectr.preferences.behaviours import activity_group
from prectr.preferences.sums import LEVEL_WIDTH, USER_WIDTH
from prectr.preferences.tolerance import GRID_SIZE, moments, posterior
from prectr.ranking.bundle import Bundle
from prectr.ranking.candidates import CacheBytes, CandidateLevels, CandidatePool, CandidateReader, Item, table
from prectr.relevance.encoder_session import RelevanceEncoder
from prectr.relevance.tokenisation import PairTokens

_BEHAVIOUR_WIDTH = 5  # query, category, brand and price ids, level + 1


@dataclass(frozen=True)
class RequestFeatures:
    """Features of a request's n candidates, and whether its user and query are known."""

    rows: RowArrays
    pairs: PairArrays
    tokens: PairTokens
    items: list[Item]
    sources: list[str]
    """Source of each candidate's relevance: judgment, teacher or encoder."""
    user_known: bool
    query_known: bool
    earlier_requests: int
    user_tolerance: tuple[float, float]
    """Posterior mean and standard deviation."""
    query_tolerance: tuple[float, float]
    derived: dict[str, dict[str, np.ndarray]]
    """Unscaled features by group and name, each [n]; explanations show them."""


UserReader = Callable[[str], dict[str, Any] | None]
"""Reads a user's entry by the user's id; None for an unknown user."""


class OnlineFeatures:
    """Builds the features of requests from an online state.

    Args:
        bundle: the bundle whose specification and preferences are used.
        relevance: the bundle's distilled encoder, for pairs that the state lacks.
        store: the online state; by default the one in the bundle.
        users: reader of users' entries; by default the store's.
        cache_bytes: memory for queries with their candidates, and for items.
    """

    def __init__(
        self,
        bundle: Bundle,
        relevance: RelevanceEncoder,
        store: FeatureStore | None = None,
        users: UserReader | None = None,
        cache_bytes: CacheBytes | None = None,
    ) -> None:
        self._bundle = bundle
        self._store = bundle.open_state() if store is None else store
        self._users = users or (lambda user_id: self._store.get("user", user_id))
        self._total = _sums(self._store.get("total", ""), "sums", LEVEL_WIDTH)
        self._candidates = CandidateReader(bundle, relevance, self._store, cache_bytes or CacheBytes())
        self.pools = self._candidates.pools

    def request(
        self, user_id: str, query: str, candidates: Sequence[str | Mapping[str, Any]], now: float
    ) -> RequestFeatures:
        """Build the features of a request's candidates.

        Args:
            user_id: an unknown user gets the priors.
            query: as typed.
            candidates: item ids, or `{"item_id", "title", "category", "brand", "price"}` for items that the catalogue
                does not hold.
            now: moment of the request in seconds since 1970.

        Raises:
            UnknownItems: candidates are not in the catalogue and have no title.
        """
        return self.of_pool(user_id, self.pool(query, candidates), now)

    def close(self) -> None:
        """Unmap the state. A process must not map the same state twice."""
        self._store.close()

    def tolerance_of(self, user_id: str) -> tuple[float, float]:
        """Compute the posterior mean and standard deviation of a user's tolerance, as of now."""
        sums = _sums(self._users(user_id), "sums", USER_WIDTH)[None, :GRID_SIZE]
        return _moments(sums, self._bundle.preferences.user_prior)

    def pool(self, query: str, candidates: Sequence[str | Mapping[str, Any]]) -> CandidatePool:
        """Read a query and its candidates; arguments and errors as in `request`."""
        return self._candidates.pool(query, candidates)

    def levels(self, query: str, candidates: Sequence[str | Mapping[str, Any]]) -> CandidateLevels:
        """Read the relevance of candidates, as `pool` reads it; arguments and errors as in `request`."""
        return self._candidates.levels(query, candidates)

    def forget(self) -> None:
        """Empty the caches and read the sums of the whole log again, because the store holds another state now."""
        self._total = _sums(self._store.get("total", ""), "sums", LEVEL_WIDTH)
        self._candidates.clear()

    def of_pool(self, user_id: str, pool: CandidatePool, now: float) -> RequestFeatures:
        """Build the features of a pool's candidates for a user; arguments as in `request`."""
        user = self._users(user_id) or {}
        state = self._state(user, pool)
        model = self._bundle.preferences
        derived = derive(state, model)
        pairs, histories = self._pairs_and_histories(user_id, user, pool, state, derived["match"], now)
        rows = RowArrays(
            pair=np.arange(len(pool.items), dtype=np.int32),
            request=np.zeros(len(pool.items), np.int64),
            categorical=self._categorical(user, {**pool.codes, **self._id_codes(user_id, pool)}, state),
            histories=histories,
            **{
                group: self._bundle.spec.scalers[group].scale(stack(derived[group]))
                for group in ("numeric", "tolerance", "query_preference")
            },
        )
        return RequestFeatures(
            rows=rows,
            pairs=pairs,
            tokens=pool.pairs.tokens,
            items=pool.items,
            sources=[SOURCES[index] for index in state.source],
            user_known="sums" in user,
            query_known=pool.known_query is not None,
            earlier_requests=int(state.user[0, GRID_SIZE]),
            user_tolerance=_moments(state.user[:, :GRID_SIZE], model.user_prior),
            query_tolerance=_moments(state.query[:, :GRID_SIZE], state.query_prior),
            derived=derived,
        )

    def _pairs_and_histories(
        self,
        user_id: str,
        user: dict[str, Any],
        pool: CandidatePool,
        state: RawState,
        match_levels: dict[str, np.ndarray],
        now: float,
    ) -> tuple[PairArrays, Histories]:
        """Build the pairs of the candidates, then of S_u, then of S_q; and the histories, which point to them."""
        spec, count = self._bundle.spec, len(pool.items)
        clicks = user.get("clicks", [])[-spec.user_behaviours :]
        user_fields = [entry[:_BEHAVIOUR_WIDTH] for entry in clicks]
        others = [entry for entry in (pool.known_query or {}).get("behaviours", []) if entry[0] != user_id]
        others = others[: spec.query_behaviours]
        pairs = PairArrays(
            fields=_integers(
                [*pool.fields, *(entry[:4] for entry in user_fields), *(entry[1:5] for entry in others)], 4
            ),
            level=np.array(
                [
                    *(state.levels.argmax(axis=1) + 1),
                    *(entry[4] for entry in user_fields),
                    *(entry[5] for entry in others),
                ],
                dtype=np.int32,
            ),
            match=spec.scalers["match"].scale(np.concatenate([stack(match_levels), pool.pairs.match], axis=1)),
            levels=state.levels.astype(np.float32),
        )
        moment = np.array([now])
        user_pairs = np.arange(count, count + len(user_fields))
        query_pairs = np.arange(count + len(user_fields), count + len(user_fields) + len(others))
        user_history = _sequence(
            user_pairs, np.ones(len(user_pairs)), [entry[5] for entry in clicks], np.zeros(len(user_pairs))
        )
        query_history = _sequence(query_pairs, *([entry[column] for entry in others] for column in (6, 7, 8)))
        return pairs, Histories(
            user_history.padded(moment, pairs, spec.user_behaviours, with_group=False),
            query_history.padded(moment, pairs, spec.query_behaviours, with_group=True),
        )

    def _state(self, user: dict[str, Any], pool: CandidatePool) -> RawState:
        query, items, pairs = pool.query, pool.items, pool.pairs
        known_query = pool.known_query or {}
        user_pairs, user_queries = user.get("pairs", {}), user.get("queries", {})
        brands, categories = user.get("brands", {}), user.get("categories", {})
        query_sums = _sums(known_query, "sums", LEVEL_WIDTH) - _sums(user_queries, query, LEVEL_WIDTH)
        query_sums[GRID_SIZE:] = np.maximum(query_sums[GRID_SIZE:], 0.0)
        # A query that the training days never showed has no category, as in build-samples. Its candidates must not
        # choose one, or an item's score would depend on the other candidates.
        prior = self._bundle.preferences.query_priors([known_query.get("category")])
        return RawState(
            request=np.zeros(len(items), np.int64),
            expected=pairs.levels @ np.arange(4) / 3,
            encoder_expected=pairs.encoder_expected,
            levels=pairs.levels,
            source=pairs.source,
            log_price=pool.log_price,
            log_list_price=pool.log_list_price,
            relative_price=pool.relative_price,
            user=_sums(user, "sums", USER_WIDTH)[None, :],
            user_price=_sums(user, "price", 2)[None, :],
            user_brand=table([brands.get(item.brand or "") for item in items], 2),
            user_category=table([categories.get(item.category) for item in items], 2),
            query=query_sums[None, :],
            query_users=np.array([max(known_query.get("users", 0.0) - (query in user_queries), 0.0)]),
            category=pool.category_sums,
            category_of=pool.category_of,
            total=self._total[None, :],
            item=table([item.sums for item in items], 2),
            pair=np.maximum(pairs.sums - table([user_pairs.get(name) for name in pairs.names], 2), 0.0),
            query_prior=prior,
        )

    def _categorical(self, user: dict[str, Any], codes: dict[str, np.ndarray], state: RawState) -> np.ndarray:
        spec, count = self._bundle.spec, len(state.log_price)
        profile = user.get("profile", {})
        columns = {
            **codes,
            "price": spec.price_bucket(state.log_price),
            "activity": np.repeat(activity_group(state.user[:, GRID_SIZE]), count),
            **{name: np.full(count, values.get(str(profile.get(name)), 0)) for name, values in spec.profile.items()},
        }
        return np.stack([columns[name] for name in spec.categorical_fields], axis=1).astype(np.int32)

    def _id_codes(self, user_id: str, pool: CandidatePool) -> dict[str, np.ndarray]:
        if not self._bundle.spec.ids:
            return {}
        item_ids = [item.item_id for item in pool.items]
        return self._bundle.spec.id_codes(pl.DataFrame({"user_id": user_id, "query": pool.query, "item_id": item_ids}))


def _sums(entry: Mapping[str, Any] | None, key: str, width: int) -> np.ndarray:
    """Read sums [width] of a stored entry; zeros if it has none."""
    value = (entry or {}).get(key)
    return np.zeros(width) if value is None else np.array(value, dtype=np.float64)


def _integers(values: list[list[int]], width: int) -> np.ndarray:
    return np.array(values, dtype=np.int32).reshape(-1, width)


def _sequence(pair: np.ndarray, clicked: Any, ts: Any, group: Any) -> Behaviours:
    """Build the sequence of one request."""
    return Behaviours(
        np.array([0, len(pair)], dtype=np.int64),
        pair.astype(np.int32),
        np.asarray(clicked, dtype=np.int8),
        np.asarray(ts, dtype=np.float64),
        np.asarray(group, dtype=np.int32),
    )


def _moments(sums: np.ndarray, prior: np.ndarray) -> tuple[float, float]:
    if not len(sums):
        return float("nan"), float("nan")
    mean, deviation = moments(posterior(sums, prior))
    return float(mean[0]), float(deviation[0])

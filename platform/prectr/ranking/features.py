"""Features of a request as of now, from the online state: the same `RawState` and `derive` as offline."""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import polars as pl
from scipy.special import softmax

from prectr.core.text import normalise_query
from prectr.features.derive import MATCH_LEVELS, SOURCES, RawState, derive
from prectr.features.inputs import Behaviours, Histories, PairArrays, RowArrays, stack
from prectr.features.store import FeatureStore, OnlineStore, pair_name
from prectr.preferences.behaviours import activity_group
from prectr.preferences.shown import LEAST_PRICE
from prectr.preferences.sums import LEVEL_WIDTH, USER_WIDTH
from prectr.preferences.tolerance import GRID_SIZE, moments, posterior
from prectr.ranking.bundle import Bundle
from prectr.relevance.encoder_session import RelevanceEncoder
from prectr.relevance.lexical import match_features
from prectr.relevance.tokenisation import PairTokens

_BEHAVIOUR_WIDTH = 5  # query, category, brand and price ids, level + 1
_CACHED_ITEMS = 200_000


class UnknownItems(ValueError):
    """Candidates that neither the catalogue nor the request describes.

    Attributes:
        item_ids: all of them.
    """

    def __init__(self, item_ids: list[str]) -> None:
        super().__init__(f"item {item_ids[0]!r} is not in the catalogue; send it as an object with item_id and title.")
        self.item_ids = item_ids


@dataclass(frozen=True)
class Item:
    """A candidate as rankers read it, worked out once; those of the catalogue are kept."""

    item_id: str
    title: str
    category: str
    brand: str | None
    price: float | None
    in_catalogue: bool
    codes: tuple[int, int, int]
    """Ids of top category, category and brand."""
    list_price_bucket: int
    log_price: float
    """NaN where unknown, as the two that follow."""
    log_list_price: float
    relative_price: float
    sums: list[float] | None
    """Exam and clicks."""
    tokens: np.ndarray
    """int32, of the title."""


@dataclass(frozen=True)
class RequestFeatures:
    """Arrays of one request's candidates, and what was not known."""

    rows: RowArrays
    pairs: PairArrays
    tokens: PairTokens
    items: list[Item]
    sources: list[str]
    """Where each candidate's relevance came from: judgment, teacher or encoder."""
    user_known: bool
    query_known: bool
    earlier_requests: int
    user_tolerance: tuple[float, float]
    """Posterior mean and standard deviation."""
    query_tolerance: tuple[float, float]
    derived: dict[str, dict[str, np.ndarray]]
    """The features by group and name, unscaled, each [n]: what an explanation is made of."""

    @property
    def titles(self) -> list[str]:
        """Of the candidates."""
        return [item.title for item in self.items]


@dataclass(frozen=True)
class CandidatePool:
    """A query and its candidates with all that does not depend on who asks; requests may share one."""

    query: str
    """Normalised."""
    known_query: dict[str, Any] | None
    items: list[Item]
    pairs: "_Pairs"
    codes: dict[str, np.ndarray]
    fields: list[list[int]]
    category_sums: np.ndarray
    category_of: np.ndarray
    log_price: np.ndarray
    log_list_price: np.ndarray
    relative_price: np.ndarray


UserReader = Callable[[str], dict[str, Any] | None]


class OnlineFeatures:
    """Reads an online state and makes the arrays of requests.

    Args:
        bundle: whose specification and preferences count.
        relevance: its distilled encoder, for pairs that the state does not hold.
        store: the state; by default the one that the bundle holds.
        users: what is known of a user; by default the store's entry.
        cached_pools: queries with candidates of the catalogue that are kept.
    """

    def __init__(
        self,
        bundle: Bundle,
        relevance: RelevanceEncoder,
        store: FeatureStore | None = None,
        users: UserReader | None = None,
        cached_pools: int = 0,
    ) -> None:
        self._bundle, self._relevance = bundle, relevance
        self._store = OnlineStore(bundle.path / "online") if store is None else store
        self._users = users or (lambda user_id: self._store.get("user", user_id))
        self._total = _sums(self._store.get("total", ""), "sums", LEVEL_WIDTH)
        self._match = bundle.spec.scalers["match"].names[len(MATCH_LEVELS) :]
        self._items: Lru[str, Item] = Lru(_CACHED_ITEMS)
        self.pools: Lru[tuple[str, ...], CandidatePool] = Lru(cached_pools)

    def request(
        self, user_id: str, query: str, candidates: Sequence[str | Mapping[str, Any]], now: float
    ) -> RequestFeatures:
        """Features of a request's candidates.

        Args:
            user_id: an unknown user is served from the priors.
            query: as typed.
            candidates: item ids, or `{"item_id", "title", "category", "brand", "price"}` for items that the
                catalogue does not hold.
            now: seconds since 1970 of the request.

        Raises:
            UnknownItems: candidates are neither in the catalogue nor come with a title.
        """
        return self.of_pool(user_id, self.pool(query, candidates), now)

    def close(self) -> None:
        """Unmap the state; a process may not map the same one twice."""
        self._store.close()

    def tolerance_of(self, user_id: str) -> tuple[float, float]:
        """Posterior mean and standard deviation of a user's tolerance, as of now."""
        sums = _sums(self._users(user_id), "sums", USER_WIDTH)[None, :GRID_SIZE]
        return _moments(sums, self._bundle.preferences.user_prior)

    def pool(self, query: str, candidates: Sequence[str | Mapping[str, Any]]) -> CandidatePool:
        """What is known of a query and its candidates; arguments and errors as `request`."""
        query = normalise_query(query)
        if not all(isinstance(entry, str) for entry in candidates):
            return self._make_pool(query, candidates)
        key = (query, *map(str, candidates))
        pool = self.pools.get(key)
        if pool is None:
            pool = self._make_pool(query, candidates)
            self.pools.put(key, pool)
        return pool

    def of_pool(self, user_id: str, pool: CandidatePool, now: float) -> RequestFeatures:
        """Features of a pool's candidates for a user; arguments as `request`."""
        items, pairs, known_query = pool.items, pool.pairs, pool.known_query
        user = self._users(user_id) or {}
        state = self._state(user, pool)
        derived = derive(state, self._bundle.preferences, self._bundle.preferences.smoothing_clicks)

        spec, count = self._bundle.spec, len(items)
        scaled = {
            group: spec.scalers[group].scale(stack(derived[group]))
            for group in ("numeric", "tolerance", "query_preference")
        }
        match = np.concatenate([stack(derived["match"]), pairs.match], axis=1)
        clicks = user.get("clicks", [])[-spec.user_behaviours :]
        user_lists = [entry[:_BEHAVIOUR_WIDTH] for entry in clicks]
        others = [entry for entry in (known_query or {}).get("behaviours", []) if entry[0] != user_id]
        others = others[: spec.query_behaviours]
        arrays = PairArrays(
            fields=_integers(
                [*pool.fields, *(entry[:4] for entry in user_lists), *(entry[1:5] for entry in others)], 4
            ),
            level=np.array(
                [
                    *(state.levels.argmax(axis=1) + 1),
                    *(entry[4] for entry in user_lists),
                    *(entry[5] for entry in others),
                ],
                dtype=np.int32,
            ),
            match=spec.scalers["match"].scale(match),
            levels=state.levels.astype(np.float32),
        )
        moment = np.array([now])
        own = np.arange(count, count + len(user_lists))
        other = np.arange(count + len(user_lists), count + len(user_lists) + len(others))
        rows = RowArrays(
            pair=np.arange(count, dtype=np.int32),
            request=np.zeros(count, np.int64),
            categorical=self._categorical(user, {**pool.codes, **self._ids(user_id, pool)}, state),
            histories=Histories(
                _sequence(own, np.ones(len(own)), [entry[5] for entry in clicks], np.zeros(len(own))).padded(
                    moment, arrays, spec.user_behaviours, with_group=False
                ),
                _sequence(other, *([entry[place] for entry in others] for place in (6, 7, 8))).padded(
                    moment, arrays, spec.query_behaviours, with_group=True
                ),
            ),
            **scaled,
        )
        model = self._bundle.preferences
        return RequestFeatures(
            rows=rows,
            pairs=arrays,
            tokens=pairs.tokens,
            items=items,
            sources=[SOURCES[index] for index in state.source],
            user_known="sums" in user,
            query_known=known_query is not None,
            earlier_requests=int(state.user[0, GRID_SIZE]),
            user_tolerance=_moments(state.user[:, :GRID_SIZE], model.user_prior),
            query_tolerance=_moments(state.query[:, :GRID_SIZE], state.query_prior),
            derived=derived,
        )

    def forget(self) -> None:
        """Read everything anew: the store holds another state now."""
        self._total = _sums(self._store.get("total", ""), "sums", LEVEL_WIDTH)
        self._items.clear()
        self.pools.clear()

    def _make_pool(self, query: str, candidates: Sequence[str | Mapping[str, Any]]) -> CandidatePool:
        spec = self._bundle.spec
        items = self._described(candidates)
        codes = np.array([item.codes for item in items], np.int32)
        buckets = np.array([item.list_price_bucket for item in items], np.int32)
        fields = np.stack([np.full(len(items), spec.query_bucket(query)), codes[:, 1], codes[:, 2], buckets], axis=1)
        categories = {name: place for place, name in enumerate(dict.fromkeys(item.category for item in items))}
        category_sums = self._store.get_many("category", categories)
        return CandidatePool(
            query=query,
            known_query=self._store.get("query", query),
            items=items,
            pairs=self._pairs(query, items),
            codes=dict(zip(("top_category", "category", "brand"), codes.T)),
            fields=fields.tolist(),
            category_sums=_table([value and value["sums"] for value in category_sums], LEVEL_WIDTH),
            category_of=np.array([categories[item.category] for item in items], np.int64),
            log_price=np.array([item.log_price for item in items]),
            log_list_price=np.array([item.log_list_price for item in items]),
            relative_price=np.array([item.relative_price for item in items]),
        )

    def _described(self, candidates: Sequence[str | Mapping[str, Any]]) -> list[Item]:
        """The candidates as items; what a client sends of an item goes before what the catalogue says."""
        found = [self._items.get(entry) if isinstance(entry, str) else None for entry in candidates]
        wanted = [place for place, item in enumerate(found) if item is None]
        given = [candidates[place] for place in wanted]
        ids = [entry if isinstance(entry, str) else entry["item_id"] for entry in given]
        stored = self._store.get_many("item", ids)
        untitled = [
            name
            for name, entry, known in zip(ids, given, stored, strict=True)
            if known is None and (isinstance(entry, str) or not entry.get("title"))
        ]
        if untitled:
            raise UnknownItems(untitled)
        for place, entry, known in zip(wanted, given, stored, strict=True):
            item = found[place] = self._describe({"item_id": entry} if isinstance(entry, str) else entry, known)
            if isinstance(entry, str):
                self._items.put(entry, item)
        return [item for item in found if item is not None]

    def _describe(self, given: Mapping[str, Any], known: Mapping[str, Any] | None) -> Item:
        spec = self._bundle.spec
        of_catalogue = known or {}
        title: str = given.get("title") or of_catalogue["title"]
        category, brand, price = (given.get(name, of_catalogue.get(name)) for name in ("category", "brand", "price"))
        list_price = of_catalogue["price"] if known else price
        log_price, log_list_price = _log_price(price), _log_price(list_price)
        category = category or ""
        median = spec.category_prices.get(category, spec.category_prices[""])
        stored = None if "title" in given else of_catalogue.get("tokens")
        tokens = self._relevance.tokeniser.ids([title])[0] if stored is None else np.frombuffer(stored, np.int32)
        return Item(
            item_id=given["item_id"],
            title=title,
            category=category,
            brand=brand,
            price=price,
            in_catalogue=known is not None,
            codes=spec.item_code(category, brand),
            list_price_bucket=int(spec.price_bucket(np.array([log_list_price]))[0]),
            log_price=log_price,
            log_list_price=log_list_price,
            relative_price=log_price - median,
            sums=of_catalogue.get("sums"),
            tokens=tokens,
        )

    def _pairs(self, query: str, items: list[Item]) -> "_Pairs":
        """Relevance and tokens of the pairs: from the state where the log had them, else by the distilled encoder."""
        stored = self._store.get_many("pair", [pair_name(query, item.item_id) for item in items])
        tokens = self._relevance.tokeniser.join(
            self._relevance.tokeniser.ids([query])[0], [item.tokens for item in items]
        )
        unknown = [place for place, value in enumerate(stored) if value is None]
        if unknown:
            logits, _ = self._relevance.score_tokens(tokens, np.array(unknown))
            probabilities = softmax(logits, axis=1)
            overlaps = match_features([query] * len(unknown), [items[place].title for place in unknown])
            for number, place in enumerate(unknown):
                stored[place] = {
                    "levels": probabilities[number].tolist(),
                    "encoder_expected": float(probabilities[number] @ np.arange(4) / 3),
                    "source": "encoder",
                    "match": [float(overlaps[name][number]) for name in self._match],
                    "sums": None,
                }
        known = [value for value in stored if value is not None]
        return _Pairs(
            levels=np.array([value["levels"] for value in known], dtype=np.float64).reshape(-1, 4),
            encoder_expected=np.array([value["encoder_expected"] for value in known], dtype=np.float64),
            source=np.array([SOURCES.index(value["source"]) for value in known], dtype=np.int64),
            match=np.array([value["match"] for value in known], dtype=np.float64).reshape(len(known), len(self._match)),
            sums=_table([value["sums"] for value in known], 2),
            names=[pair_name(query, item.item_id) for item in items],
            tokens=tokens,
        )

    def _state(self, user: dict[str, Any], pool: CandidatePool) -> RawState:
        query, items, pairs = pool.query, pool.items, pool.pairs
        known_query = pool.known_query or {}
        own_pairs, own_queries = user.get("pairs", {}), user.get("queries", {})
        brands, categories = user.get("brands", {}), user.get("categories", {})
        query_sums = _sums(known_query, "sums", LEVEL_WIDTH) - _sums(own_queries, query, LEVEL_WIDTH)
        query_sums[GRID_SIZE:] = np.maximum(query_sums[GRID_SIZE:], 0.0)
        # A query that the training days never showed has no category, as in build-samples: its candidates must not
        # choose one, or an item's score would depend on what it is compared with.
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
            user_brand=_table([brands.get(item.brand or "") for item in items], 2),
            user_category=_table([categories.get(item.category) for item in items], 2),
            query=query_sums[None, :],
            query_users=np.array([max(known_query.get("users", 0.0) - (query in own_queries), 0.0)]),
            category=pool.category_sums,
            category_of=pool.category_of,
            total=self._total[None, :],
            item=_table([item.sums for item in items], 2),
            pair=np.maximum(pairs.sums - _table([own_pairs.get(name) for name in pairs.names], 2), 0.0),
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

    def _ids(self, user_id: str, pool: CandidatePool) -> dict[str, np.ndarray]:
        if not self._bundle.spec.ids:
            return {}
        item_ids = [item.item_id for item in pool.items]
        return self._bundle.spec.id_codes(pl.DataFrame({"user_id": user_id, "query": pool.query, "item_id": item_ids}))


@dataclass(frozen=True)
class _Pairs:
    levels: np.ndarray
    encoder_expected: np.ndarray
    source: np.ndarray
    match: np.ndarray
    sums: np.ndarray
    names: list[str]
    tokens: PairTokens


def _log_price(price: float | None) -> float:
    """NaN where unknown."""
    return math.nan if price is None else math.log(max(float(price), LEAST_PRICE))


def _sums(holder: Mapping[str, Any] | None, key: str, width: int) -> np.ndarray:
    value = (holder or {}).get(key)
    return np.zeros(width) if value is None else np.array(value, dtype=np.float64)


def _table(values: Sequence[Any], width: int) -> np.ndarray:
    return np.array([value if value is not None else [0.0] * width for value in values], dtype=np.float64).reshape(
        -1, width
    )


def _integers(values: list[list[int]], width: int) -> np.ndarray:
    return np.array(values, dtype=np.int32).reshape(-1, width)


def _sequence(pair: np.ndarray, clicked: Any, ts: Any, group: Any) -> Behaviours:
    """The one sequence of a request."""
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


Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Lru(Generic[Key, Value]):
    """At most `capacity` entries; 0 keeps none.

    Attributes:
        hits: look-ups that were answered.
        misses: those that were not.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[Key, Value] = OrderedDict()
        self.hits = self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Value | None:
        """The entry, which is now the most recently used one; None if there is none."""
        value = self._entries.get(key)
        if value is None:
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end(key)
        return value

    def put(self, key: Key, value: Value) -> None:
        """Keep an entry."""
        self._entries[key] = value
        self._entries.move_to_end(key)
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forget all entries; what was counted stays."""
        self._entries.clear()

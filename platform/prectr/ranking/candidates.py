"""Candidates of a request: their items and pairs, from the online state or as the request describes them.

Nothing here depends on the user, so requests with the same query and candidates share the result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from prectr.core.errors import quoted
from prectr.core.lru import ENTRY_BYTES, LruCache, plain_bytes
from prectr.core.text import normalise_query
from prectr.features.derive import SOURCES
from prectr.features.store import FeatureStore, pair_name
from prectr.preferences.shown import log_price
from prectr.preferences.sums import LEVEL_WIDTH
from prectr.ranking.bundle import Bundle
from prectr.relevance.encoder_session import RelevanceEncoder
from prectr.relevance.match_features import MATCH_FEATURES
from prectr.relevance.tokenisation import PairTokens

_ITEM_BYTES = 800
"""Bytes of an item beside its texts and tokens."""
_CANDIDATE_BYTES = 430
"""Bytes of a candidate of a pool beside arrays, texts and its item."""


@dataclass(frozen=True)
class CacheBytes:
    """Memory of the caches of a reader, in bytes.

    Attributes:
        pools: for queries with candidates of the catalogue; 0 caches none.
        items: for items of the catalogue.
        levels: for the encoder's levels of pairs that the log never showed; about 100,000 pairs.
    """

    pools: int = 0
    items: int = 192 * 2**20
    levels: int = 64 * 2**20


class UnknownItems(ValueError):
    """Candidates that neither the catalogue nor the request describes.

    Attributes:
        item_ids: ids of all these candidates.
    """

    def __init__(self, item_ids: list[str]) -> None:
        super().__init__(
            f"item {quoted(item_ids[0])} is not in the catalogue; send it as an object with item_id and title."
        )
        self.item_ids = item_ids


@dataclass(frozen=True)
class Item:
    """A candidate as rankers read it. Items of the catalogue are cached."""

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
    """NaN if unknown, like the next two."""
    log_list_price: float
    relative_price: float
    sums: list[float] | None
    """Examined impressions and clicks."""
    tokens: np.ndarray
    """Token ids of the title, int32."""


@dataclass(frozen=True)
class CandidatePairs:
    """The n pairs of a query and its candidates."""

    levels: np.ndarray
    """[n, k] level probabilities."""
    encoder_expected: np.ndarray
    source: np.ndarray
    """[n] index into SOURCES."""
    match: np.ndarray
    """[n, M] lexical match features, unscaled."""
    sums: np.ndarray
    """[n, 2] examined impressions and clicks."""
    names: list[str]
    tokens: PairTokens


@dataclass(frozen=True)
class CandidatePool:
    """A query with its candidates. Arrays are [n] unless noted."""

    query: str
    """Normalised."""
    known_query: dict[str, Any] | None
    """The query's entry in the online state."""
    items: list[Item]
    pairs: CandidatePairs
    codes: dict[str, np.ndarray]
    fields: list[list[int]]
    category_sums: np.ndarray
    """[c, LEVEL_WIDTH] sums of the candidates' c categories."""
    category_of: np.ndarray
    """Row of `category_sums` of each candidate."""
    log_price: np.ndarray
    log_list_price: np.ndarray
    relative_price: np.ndarray


@dataclass(frozen=True)
class CandidateLevels:
    """Items under a query and their relevance, all that an event needs of them."""

    known_query: dict[str, Any] | None
    """The query's entry in the online state."""
    items: list[Item]
    fields: list[list[int]]
    """Query, category, brand and price ids of each item."""
    levels: np.ndarray
    """[n, 4] level probabilities."""


class CandidateReader:
    """Reads queries and candidates from an online state.

    Args:
        bundle: the bundle whose specification is used.
        relevance: the bundle's distilled encoder, for pairs that the state lacks.
        store: the online state.
        cache_bytes: memory for queries with their candidates, and for items.
    """

    def __init__(
        self, bundle: Bundle, relevance: RelevanceEncoder, store: FeatureStore, cache_bytes: CacheBytes
    ) -> None:
        self._spec, self._relevance, self._store = bundle.spec, relevance, store
        self.items: LruCache[str, Item] = LruCache(cache_bytes.items, _item_bytes)
        self._encoder_levels: LruCache[tuple[str, str], list[float]] = LruCache(cache_bytes.levels, _levels_bytes)
        self.pools: LruCache[tuple[str, ...], CandidatePool] = LruCache(cache_bytes.pools, _pool_bytes)

    def pool(self, query: str, candidates: Sequence[str | Mapping[str, Any]]) -> CandidatePool:
        """Read a query and its candidates; arguments and errors as in `OnlineFeatures.request`."""
        query = normalise_query(query)
        if not all(isinstance(entry, str) for entry in candidates):
            return self._read_pool(query, candidates)
        key = (query, *map(str, candidates))
        pool = self.pools.get(key)
        if pool is None:
            pool = self._read_pool(query, candidates)
            self.pools.put(key, pool)
        return pool

    def levels(self, query: str, candidates: Sequence[str | Mapping[str, Any]]) -> CandidateLevels:
        """Read items and their relevance for a query; arguments and errors as in `OnlineFeatures.pool`.

        The numbers are those of `pool`, which reads much more.
        """
        query = normalise_query(query)
        items = self._read_items(candidates)
        query_bucket = self._spec.query_bucket(query)
        stored = self._store.get_many("pair", [pair_name(query, item.item_id) for item in items])
        levels = [
            self._known_levels(query, item) if entry is None else entry["levels"] for item, entry in zip(items, stored)
        ]
        missing = [number for number, value in enumerate(levels) if value is None]
        if missing:
            unscored = [items[number] for number in missing]
            tokens = self._join(query, unscored).with_match(self._match_features(query, unscored))
            for number, value in zip(missing, self._encode(query, unscored, tokens), strict=True):
                levels[number] = value
        return CandidateLevels(
            known_query=self._store.get("query", query),
            items=items,
            fields=[[query_bucket, item.codes[1], item.codes[2], item.list_price_bucket] for item in items],
            levels=np.array(levels, dtype=np.float64).reshape(-1, 4),
        )

    def clear(self) -> None:
        """Empty the caches, because the store holds another state now."""
        self.items.clear()
        self._encoder_levels.clear()
        self.pools.clear()

    def _read_pool(self, query: str, candidates: Sequence[str | Mapping[str, Any]]) -> CandidatePool:
        items = self._read_items(candidates)
        codes = np.array([item.codes for item in items], np.int32)
        buckets = np.array([item.list_price_bucket for item in items], np.int32)
        query_bucket = np.full(len(items), self._spec.query_bucket(query))
        fields = np.stack([query_bucket, codes[:, 1], codes[:, 2], buckets], axis=1)
        categories = {name: row for row, name in enumerate(dict.fromkeys(item.category for item in items))}
        category_sums = self._store.get_many("category", categories)
        return CandidatePool(
            query=query,
            known_query=self._store.get("query", query),
            items=items,
            pairs=self._read_pairs(query, items),
            codes=dict(zip(("top_category", "category", "brand"), codes.T)),
            fields=fields.tolist(),
            category_sums=table([value and value["sums"] for value in category_sums], LEVEL_WIDTH),
            category_of=np.array([categories[item.category] for item in items], np.int64),
            log_price=np.array([item.log_price for item in items]),
            log_list_price=np.array([item.log_list_price for item in items]),
            relative_price=np.array([item.relative_price for item in items]),
        )

    def _read_items(self, candidates: Sequence[str | Mapping[str, Any]]) -> list[Item]:
        """Describe the candidates; what the request says of an item goes before what the catalogue says."""
        items = [self.items.get(entry) if isinstance(entry, str) else None for entry in candidates]
        missing = [number for number, item in enumerate(items) if item is None]
        entries = [candidates[number] for number in missing]
        ids = [entry if isinstance(entry, str) else entry["item_id"] for entry in entries]
        stored_items = self._store.get_many("item", ids)
        untitled = [
            name
            for name, entry, stored in zip(ids, entries, stored_items, strict=True)
            if stored is None and (isinstance(entry, str) or not entry.get("title"))
        ]
        if untitled:
            raise UnknownItems(untitled)
        for number, entry, stored in zip(missing, entries, stored_items, strict=True):
            item = items[number] = self._describe({"item_id": entry} if isinstance(entry, str) else entry, stored)
            if isinstance(entry, str):
                self.items.put(entry, item)
        return [item for item in items if item is not None]

    def _describe(self, entry: Mapping[str, Any], stored: Mapping[str, Any] | None) -> Item:
        """Describe an item by its entry in the request and its entry in the state."""
        spec = self._spec
        catalogue_entry = stored or {}
        title: str = entry.get("title") or catalogue_entry["title"]
        category, brand, price = (entry.get(name, catalogue_entry.get(name)) for name in ("category", "brand", "price"))
        list_price = catalogue_entry["price"] if stored else price
        exposure_price, log_list_price = log_price(price), log_price(list_price)
        category = category or ""
        median = spec.category_prices.get(category, spec.category_prices[""])
        token_bytes = None if "title" in entry else catalogue_entry.get("tokens")
        tokens = (
            self._relevance.tokeniser.ids([title])[0] if token_bytes is None else np.frombuffer(token_bytes, np.int32)
        )
        return Item(
            item_id=entry["item_id"],
            title=title,
            category=category,
            brand=brand,
            price=price,
            in_catalogue=stored is not None,
            codes=spec.item_code(category, brand),
            list_price_bucket=int(spec.price_bucket(np.array([log_list_price]))[0]),
            log_price=exposure_price,
            log_list_price=log_list_price,
            relative_price=exposure_price - median,
            sums=catalogue_entry.get("sums"),
            tokens=tokens,
        )

    def _read_pairs(self, query: str, items: list[Item]) -> CandidatePairs:
        """Read the pairs' relevance from the state; the distilled encoder scores pairs that the log never showed."""
        names = [pair_name(query, item.item_id) for item in items]
        stored = self._store.get_many("pair", names)
        unscored = [number for number, entry in enumerate(stored) if entry is None]
        match = table([entry and entry["match"] for entry in stored], len(MATCH_FEATURES))
        if unscored:
            match[unscored] = self._match_features(query, [items[number] for number in unscored])
        tokens = self._join(query, items).with_match(match)
        if unscored:
            levels = self._encode(query, [items[number] for number in unscored], tokens, np.array(unscored))
            for number, probabilities in zip(unscored, levels, strict=True):
                stored[number] = {
                    "levels": probabilities,
                    "encoder_expected": float(np.array(probabilities) @ np.arange(4) / 3),
                    "source": "encoder",
                    "sums": None,
                }
        entries = [entry for entry in stored if entry is not None]
        return CandidatePairs(
            levels=np.array([entry["levels"] for entry in entries], dtype=np.float64).reshape(-1, 4),
            encoder_expected=np.array([entry["encoder_expected"] for entry in entries], dtype=np.float64),
            source=np.array([SOURCES.index(entry["source"]) for entry in entries], dtype=np.int64),
            match=match,
            sums=table([entry["sums"] for entry in entries], 2),
            names=names,
            tokens=tokens,
        )

    def _match_features(self, query: str, items: list[Item]) -> np.ndarray:
        return self._relevance.matches.features([query] * len(items), [item.title for item in items])

    def _join(self, query: str, items: list[Item]) -> PairTokens:
        tokeniser = self._relevance.tokeniser
        return tokeniser.join(tokeniser.ids([query])[0], [item.tokens for item in items])

    def _known_levels(self, query: str, item: Item) -> list[float] | None:
        """Levels that the encoder gave a pair before, if the request does not describe the item; None without any."""
        return self._encoder_levels.get((query, item.item_id)) if self._is_as_in_catalogue(item) else None

    def _is_as_in_catalogue(self, item: Item) -> bool:
        return self.items.peek(item.item_id) is item

    def _encode(
        self, query: str, items: list[Item], tokens: PairTokens, rows: np.ndarray | None = None
    ) -> list[list[float]]:
        """Levels of pairs by the distilled encoder.

        Args:
            query: normalised.
            items: the n items.
            tokens: tokens and match features of the pairs.
            rows: [n] rows of `tokens` that belong to the items. None: all.
        """
        logits, _ = self._relevance.score_tokens(tokens, np.arange(len(items)) if rows is None else rows)
        levels: list[list[float]] = softmax(logits, axis=1).tolist()
        for item, value in zip(items, levels, strict=True):
            if self._is_as_in_catalogue(item):
                self._encoder_levels.put((query, item.item_id), value)
        return levels


def _item_bytes(_: str, item: Item) -> int:
    """Estimated bytes of a cached item."""
    texts = len(item.item_id) + len(item.title) + len(item.category) + len(item.brand or "")
    return ENTRY_BYTES + _ITEM_BYTES + texts + item.tokens.nbytes


def _levels_bytes(pair: tuple[str, str], levels: list[float]) -> int:
    return ENTRY_BYTES + plain_bytes(pair) + plain_bytes(levels)


def _pool_bytes(_: tuple[str, ...], pool: CandidatePool) -> int:
    """Estimated bytes of a cached pool with its items, which it may share with other pools and the cache of items."""
    pairs, tokens = pool.pairs, pool.pairs.tokens
    arrays = [
        *(pairs.levels, pairs.encoder_expected, pairs.source, pairs.match, pairs.sums),
        *(tokens.values, tokens.offsets, tokens.query_tokens, *pool.codes.values()),
        *(pool.category_sums, pool.category_of, pool.log_price, pool.log_list_price, pool.relative_price),
    ]
    if tokens.match is not None:
        arrays.append(tokens.match)
    candidates = sum(map(len, pairs.names)) + _CANDIDATE_BYTES * len(pool.items)
    items = sum(_item_bytes("", item) for item in pool.items)
    return sum(array.nbytes + 128 for array in arrays) + candidates + items + plain_bytes(pool.known_query)


def table(values: Sequence[Any], width: int) -> np.ndarray:
    """Stack lists of numbers to float64 [n, width]; None becomes a row of zeros."""
    return np.array([value if value is not None else [0.0] * width for value in values], dtype=np.float64).reshape(
        -1, width
    )

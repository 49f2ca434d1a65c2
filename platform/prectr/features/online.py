"""Features of a request as of now, from the online state: the same `RawState` and `derive` as offline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from prectr.bundle import Bundle
from prectr.features.derive import MATCH_LEVELS, SOURCES, RawState, derive
from prectr.features.inputs import Behaviours, Histories, PairArrays, RowArrays, stack
from prectr.features.spec import activity_group
from prectr.features.store import OnlineStore, pair_name
from prectr.preferences.sums import LEVEL_WIDTH, USER_WIDTH
from prectr.preferences.tolerance import GRID_SIZE, moments, posterior
from prectr.relevance.encoder_session import RelevanceEncoder
from prectr.relevance.lexical import match_features
from prectr.relevance.tokenisation import PairTokens
from prectr.text import normalise_query

_BEHAVIOUR_WIDTH = 5  # query, category, brand and price ids, level + 1


@dataclass(frozen=True)
class RequestFeatures:
    """Arrays of one request's candidates, and what was not known."""

    rows: RowArrays
    pairs: PairArrays
    tokens: PairTokens
    titles: list[str]
    sources: list[str]
    """Where each candidate's relevance came from: judgment, teacher or encoder."""
    user_known: bool
    query_known: bool
    earlier_requests: int
    user_tolerance: tuple[float, float]
    """Posterior mean and standard deviation."""
    query_tolerance: tuple[float, float]


@dataclass(frozen=True)
class CandidatePool:
    """A query and its candidates with all that does not depend on who asks; requests may share one."""

    query: str
    """Normalised."""
    known_query: dict[str, Any] | None
    items: list[dict[str, Any]]
    pairs: "_Pairs"
    codes: dict[str, np.ndarray]
    fields: list[list[int]]
    categories: list[str]
    category_sums: np.ndarray
    category_of: np.ndarray
    log_price: np.ndarray
    relative_price: np.ndarray


class OnlineFeatures:
    """Reads the online state of a bundle and makes the arrays of requests."""

    def __init__(self, bundle: Bundle, relevance: RelevanceEncoder) -> None:
        self._bundle, self._relevance = bundle, relevance
        self._store = OnlineStore(bundle.path / "online")
        self._total = _sums(self._store.get("total", ""), "sums", LEVEL_WIDTH)
        self._match = bundle.spec.scalers["match"].names[len(MATCH_LEVELS) :]

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
            ValueError: a candidate is neither in the catalogue nor comes with a title.
        """
        return self.of_pool(user_id, self.pool(query, candidates), now)

    def close(self) -> None:
        """Unmap the state; a process may not map the same one twice."""
        self._store.close()

    def pool(self, query: str, candidates: Sequence[str | Mapping[str, Any]]) -> CandidatePool:
        """What is known of a query and its candidates; arguments and errors as `request`."""
        query = normalise_query(query)
        items = self._items(candidates)
        codes = self._item_codes(items)
        categories = [item["category"] or "" for item in items]
        log_price = _log_prices(items, "price")
        distinct = sorted(set(categories))
        category_sums = self._store.get_many("category", distinct)
        return CandidatePool(
            query=query,
            known_query=self._store.get("query", query),
            items=items,
            pairs=self._pairs(query, items),
            codes=codes,
            fields=self._fields(query, items, codes),
            categories=categories,
            category_sums=_table([value and value["sums"] for value in category_sums], LEVEL_WIDTH),
            category_of=np.array([distinct.index(name) for name in categories], np.int64),
            log_price=log_price,
            relative_price=self._bundle.spec.relative_price(log_price, pl.Series(categories, dtype=pl.String)),
        )

    def of_pool(self, user_id: str, pool: CandidatePool, now: float) -> RequestFeatures:
        """Features of a pool's candidates for a user; arguments as `request`."""
        query, items, pairs, known_query = pool.query, pool.items, pool.pairs, pool.known_query
        user = self._store.get("user", user_id) or {}
        state = self._state(user, pool)
        derived = derive(state, self._bundle.preferences, self._bundle.preferences.smoothing_clicks)

        spec, count = self._bundle.spec, len(items)
        scaled = {
            group: spec.scalers[group].scale(stack(derived[group]))
            for group in ("numeric", "tolerance", "query_preference")
        }
        match = np.concatenate([stack(derived["match"]), pairs.match], axis=1)
        ids = spec.id_codes(
            pl.DataFrame({"user_id": user_id, "query": query, "item_id": [item["item_id"] for item in items]})
        )
        user_lists = [entry[:_BEHAVIOUR_WIDTH] for entry in user.get("clicks", [])]
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
            categorical=self._categorical(user, {**pool.codes, **ids}, state),
            histories=Histories(
                _sequence(
                    own, np.ones(len(own)), [entry[5] for entry in user.get("clicks", [])], np.zeros(len(own))
                ).padded(moment, arrays, spec.user_behaviours, with_group=False),
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
            titles=[item["title"] for item in items],
            sources=[SOURCES[index] for index in state.source],
            user_known="sums" in user,
            query_known=known_query is not None,
            earlier_requests=int(state.user[0, GRID_SIZE]),
            user_tolerance=_moments(state.user[:, :GRID_SIZE], model.user_prior),
            query_tolerance=_moments(state.query[:, :GRID_SIZE], state.query_prior),
        )

    def _items(self, candidates: Sequence[str | Mapping[str, Any]]) -> list[dict[str, Any]]:
        given = [{"item_id": entry} if isinstance(entry, str) else dict(entry) for entry in candidates]
        stored = self._store.get_many("item", [entry["item_id"] for entry in given])
        items = []
        for entry, known in zip(given, stored, strict=True):
            item = {"category": "", "brand": None, "price": None, "sums": None, **(known or {}), **entry}
            item["list_price"] = known["price"] if known else item["price"]
            if not item.get("title"):
                raise ValueError(
                    f"item {item['item_id']!r} is not in the catalogue; send it as an object with item_id and title."
                )
            items.append(item)
        return items

    def _pairs(self, query: str, items: list[dict[str, Any]]) -> "_Pairs":
        """Relevance and tokens of the pairs: from the state where the log had them, else by the distilled encoder."""
        stored = self._store.get_many("pair", [pair_name(query, item["item_id"]) for item in items])
        titles = [item["title"] for item in items]
        unknown = [place for place, value in enumerate(stored) if value is None]
        if unknown:
            queries, missing = [query] * len(unknown), [titles[place] for place in unknown]
            probabilities, _, _ = self._relevance.score(queries, missing)
            overlaps = match_features(queries, missing)
            for number, place in enumerate(unknown):
                stored[place] = {
                    "levels": probabilities[number].tolist(),
                    "encoder_expected": float(probabilities[number] @ np.arange(4) / 3),
                    "source": "encoder",
                    "match": [float(overlaps[name][number]) for name in self._match],
                    "sums": None,
                }
        known = [value for value in stored if value is not None]
        tokens = self._relevance.tokeniser.encode([query] * len(items), titles)
        return _Pairs(
            levels=np.array([value["levels"] for value in known], dtype=np.float64).reshape(-1, 4),
            encoder_expected=np.array([value["encoder_expected"] for value in known], dtype=np.float64),
            source=np.array([SOURCES.index(value["source"]) for value in known], dtype=np.int64),
            match=np.array([value["match"] for value in known], dtype=np.float64).reshape(len(known), len(self._match)),
            sums=_table([value["sums"] for value in known], 2),
            tokens=tokens,
        )

    def _state(self, user: dict[str, Any], pool: CandidatePool) -> RawState:
        query, items, pairs = pool.query, pool.items, pool.pairs
        known_query = pool.known_query or {}
        own_pairs = user.get("pairs", {})
        own_pair_sums = [own_pairs.get(pair_name(query, item["item_id"])) for item in items]
        own_queries = user.get("queries", {})
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
            log_list_price=_log_prices(items, "list_price"),
            relative_price=pool.relative_price,
            user=_sums(user, "sums", USER_WIDTH)[None, :],
            user_price=_sums(user, "price", 2)[None, :],
            user_brand=_table([user.get("brands", {}).get(item["brand"] or "") for item in items], 2),
            user_category=_table([user.get("categories", {}).get(name) for name in pool.categories], 2),
            query=query_sums[None, :],
            query_users=np.array([max(known_query.get("users", 0.0) - (query in own_queries), 0.0)]),
            category=pool.category_sums,
            category_of=pool.category_of,
            total=self._total[None, :],
            item=_table([item["sums"] for item in items], 2),
            pair=np.maximum(pairs.sums - _table(own_pair_sums, 2), 0.0),
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

    def _item_codes(self, items: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        frame = pl.DataFrame(
            {"category": [item["category"] for item in items], "brand": [item["brand"] for item in items]},
            schema={"category": pl.String, "brand": pl.String},
        )
        return self._bundle.spec.item_codes(frame)

    def _fields(self, query: str, items: list[dict[str, Any]], codes: dict[str, np.ndarray]) -> list[list[int]]:
        """Ids of TARGET_FIELDS of each candidate; by the catalogue's price where it has the item, as in samples."""
        spec = self._bundle.spec
        bucket = np.full(len(items), spec.query_bucket(query))
        columns = [bucket, codes["category"], codes["brand"], spec.price_bucket(_log_prices(items, "list_price"))]
        return np.stack(columns, axis=1).tolist()


@dataclass(frozen=True)
class _Pairs:
    levels: np.ndarray
    encoder_expected: np.ndarray
    source: np.ndarray
    match: np.ndarray
    sums: np.ndarray
    tokens: PairTokens


def _log_prices(items: list[dict[str, Any]], key: str) -> np.ndarray:
    """[n] NaN where unknown."""
    prices = [np.nan if item[key] is None else np.log(max(float(item[key]), 0.01)) for item in items]
    return np.array(prices, dtype=np.float64)


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

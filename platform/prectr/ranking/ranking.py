"""Answers to requests with one bundle: features as of now, the Scorer and the final order.

The HTTP service and `prectr score` both answer requests here.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter
from scipy.special import expit

from prectr.contracts.protocol import (
    CandidateItem,
    Explanation,
    ScoredCandidate,
    ScoreRequest,
    ScoreResponse,
    Tolerance,
)
from prectr.features.store import FeatureStore
from prectr.ranking.batch_ranking import stack_requests
from prectr.ranking.bundle import Bundle
from prectr.ranking.candidates import CacheBytes, UnknownItems
from prectr.ranking.features import OnlineFeatures, RequestFeatures, UserReader
from prectr.ranking.scoring import Scorer, Scores

_SCORED = TypeAdapter(list[ScoredCandidate])
_RATES = ("user", "query", "item", "pair", "user_brand", "user_category")


class Ranking:
    """Ranks the candidates of requests with one bundle. Use it from one thread only.

    Args:
        bundle: a directory that `prectr train` published, an opened bundle, or a scorer. Several rankings may share a
            scorer; `threads` and `int8` are then those of the scorer.
        threads: ONNX Runtime threads of one call; 0 = all cores.
        int8: run the encoders in their int8 form.
        store: online state that features are read from; by default the state in the bundle.
        users: reader of users' entries; by default the store's.
        cache_bytes: memory for queries with their candidates, and for items.
        degraded: returns the names of features that have been missing since its last call; by default none.

    Raises:
        UsageError: the directory holds no bundle, or the bundle has no int8 encoders.
        PrectrError: another version of the project wrote the bundle, or a file of it is missing or too short.

    Example::

        ranking = Ranking(Path("work/bundle"))
        request = ScoreRequest(user_id="u1", query="red shoes", candidates=["i1", "i2"])
        for candidate in ranking.rank(request).results:
            print(candidate.rank, candidate.item_id, candidate.click_probability)
        ranking.close()
    """

    def __init__(
        self,
        bundle: Path | Bundle | Scorer,
        threads: int = 1,
        int8: bool = False,
        store: FeatureStore | None = None,
        users: UserReader | None = None,
        cache_bytes: CacheBytes | None = None,
        degraded: Callable[[], list[str]] | None = None,
    ) -> None:
        self.scorer = bundle if isinstance(bundle, Scorer) else Scorer(bundle, threads, int8)
        self.features = OnlineFeatures(self.scorer.bundle, self.scorer.relevance, store, users, cache_bytes)
        self._degraded = degraded

    def close(self) -> None:
        """Unmap the online state."""
        self.features.close()

    def rank(self, request: ScoreRequest) -> ScoreResponse:
        """Order the candidates of a request by click probability; ties keep the request's order.

        Raises:
            UnknownItems: no candidate is in the catalogue or has a title.
        """
        (answer,) = self.rank_many([request])
        if isinstance(answer, ValueError):
            raise answer
        return answer

    def rank_many(self, requests: Sequence[ScoreRequest]) -> list[ScoreResponse | ValueError]:
        """Answer several requests in one call of the models; the answer is an error if no candidate is known."""
        answers: list[ScoreResponse | ValueError | None] = [None] * len(requests)
        prepared: list[_Prepared] = []
        for number, request in enumerate(requests):
            try:
                prepared.append(self._prepare(number, request))
            except ValueError as error:
                answers[number] = error
        if prepared:
            started = time.perf_counter()
            rows, pairs, tokens = stack_requests([entry.features for entry in prepared], range(len(prepared)))
            scores = self.scorer.score(rows, pairs, tokens)
            seconds = time.perf_counter() - started
            ends = np.cumsum([len(entry.features.rows) for entry in prepared])
            for entry, end in zip(prepared, ends.tolist()):
                part = scores.slice(end - len(entry.features.rows), end)
                answers[entry.number] = self._response(requests[entry.number], entry, part, seconds)
        return [answer for answer in answers if answer is not None]

    def click_logits(self, request: ScoreRequest) -> np.ndarray:
        """Compute position-free click logits of a request's candidates in the request's order, float32 [n]."""
        features = self._features(request)
        return self.scorer.score(features.rows, features.pairs, features.tokens).click_logit

    def _prepare(self, number: int, request: ScoreRequest) -> "_Prepared":
        """Read the features of the candidates that are known."""
        started = time.perf_counter()
        unscored: list[str] = []
        try:
            features = self._features(request)
        except UnknownItems as error:
            unscored = error.item_ids
            unknown = set(unscored)
            known_entries = [entry for entry in request.candidates if _item_id(entry) not in unknown]
            if not known_entries:
                raise
            request = request.model_copy(update={"candidates": known_entries})
            features = self._features(request)
        degraded = self._degraded() if self._degraded else []
        return _Prepared(number, features, unscored, degraded, time.perf_counter() - started)

    def _features(self, request: ScoreRequest) -> RequestFeatures:
        now = time.time() if request.context.ts is None else request.context.ts
        return self.features.request(request.user_id, request.query, request.plain_candidates(), now)

    def _response(self, request: ScoreRequest, prepared: "_Prepared", scores: Scores, seconds: float) -> ScoreResponse:
        bundle, features = self.scorer.bundle, prepared.features
        return ScoreResponse(
            request_id=request.context.request_id or uuid.uuid4().hex,
            model=bundle.name,
            version=bundle.version,
            user_known=features.user_known,
            query_known=features.query_known,
            earlier_requests=features.earlier_requests,
            user_tolerance=Tolerance(mean=features.user_tolerance[0], deviation=features.user_tolerance[1]),
            query_tolerance=Tolerance(mean=features.query_tolerance[0], deviation=features.query_tolerance[1]),
            results=_ordered(request, features, scores),
            unscored=prepared.unscored,
            degraded=prepared.degraded,
            seconds={"features": round(prepared.seconds, 5), "model": round(seconds, 5)},
        )


@dataclass(frozen=True)
class _Prepared:
    """The features of a request, its number among the requests, and what was missing."""

    number: int
    features: RequestFeatures
    unscored: list[str]
    degraded: list[str]
    seconds: float


def _item_id(candidate: str | CandidateItem) -> str:
    return candidate if isinstance(candidate, str) else candidate.item_id


def _ordered(request: ScoreRequest, features: RequestFeatures, scores: Scores) -> list[ScoredCandidate]:
    order = np.argsort(-scores.click_logit, kind="stable")[: request.top_k]
    columns = (
        scores.click_logit,
        scores.click_probability,
        scores.level_probabilities,
        scores.expected_level,
        scores.incentive,
    )
    ordered = zip(order.tolist(), *(values[order].tolist() for values in columns), strict=True)
    fields = []
    for rank, (row, score, probability, levels, expected, tau) in enumerate(ordered, start=1):
        item = features.items[row]
        fields.append(
            {
                "rank": rank,
                "item_id": item.item_id,
                "title": item.title,
                "price": item.price,
                "score": score,
                "click_probability": probability,
                "level_probabilities": levels,
                "expected_level": expected,
                "tau": tau,
                "relevance_source": features.sources[row],
                "in_catalogue": item.in_catalogue,
                "explanation": _explanation(features, scores, row) if request.explain else None,
            }
        )
    return _SCORED.validate_python(fields)  # one call for all is much quicker than one for each


def _explanation(features: RequestFeatures, scores: Scores, row: int) -> Explanation:
    numeric, tolerance = features.derived["numeric"], features.derived["tolerance"]
    priced = features.user_known and features.items[row].price is not None
    return Explanation(
        level_click_probabilities=scores.level_click_probabilities[row].tolist(),
        without_tau=float(expit(scores.click_logit[row] - scores.incentive[row])),
        acceptance=float(np.exp(tolerance["predictive_click"][row])),
        above_threshold=float(tolerance["above_threshold"][row]),
        rates={name: float(np.exp(numeric[f"{name}_rate"][row])) for name in _RATES},
        price_above_usual=float(numeric["price_above_user"][row]) if priced else None,
    )

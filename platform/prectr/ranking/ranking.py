"""A bundle answering requests: features as of now, the Scorer, the final order. HTTP and batch both end here."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
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
from prectr.ranking.batch_ranking import stack
from prectr.ranking.bundle import Bundle
from prectr.ranking.features import OnlineFeatures, RequestFeatures, UnknownItems, UserReader
from prectr.ranking.scoring import Scorer, Scores

_RATES = ("user", "query", "item", "pair", "user_brand", "user_category")


class Ranking:
    """Scores requests with one bundle. For one thread.

    Args:
        bundle: the directory that `prectr train` published, or the bundle opened; or a scorer of one, which several
            rankings may share, and whose settings then are the next two.
        threads: ONNX Runtime threads of one call; 0 = all cores.
        int8: run the encoders in their int8 form.
        store: where features come from; by default the state in the bundle.
        users: what is known of a user; by default the store's entry.
        cached_pools: queries with their candidates that are kept.
        degraded: what could not be had since it was last asked; where features may be missing.

    Raises:
        UsageError: no bundle there, or it has no int8 encoders.
        PrectrError: the bundle is of another version, or a file of it is missing or cut short.
    """

    def __init__(
        self,
        bundle: Path | Bundle | Scorer,
        threads: int = 1,
        int8: bool = False,
        store: FeatureStore | None = None,
        users: UserReader | None = None,
        cached_pools: int = 0,
        degraded: Callable[[], list[str]] | None = None,
    ) -> None:
        self.scorer = bundle if isinstance(bundle, Scorer) else Scorer(bundle, threads, int8)
        self.features = OnlineFeatures(self.scorer.bundle, self.scorer.relevance, store, users, cached_pools)
        self._degraded = degraded

    def close(self) -> None:
        """Let go of the state."""
        self.features.close()

    def rank(self, request: ScoreRequest) -> ScoreResponse:
        """Score and order the candidates of a request by click probability; ties keep the request's order.

        Raises:
            UnknownItems: no candidate is known, or came with a title.
        """
        (answer,) = self.rank_many([request])
        if isinstance(answer, ValueError):
            raise answer
        return answer

    def rank_many(self, requests: Sequence[ScoreRequest]) -> list[ScoreResponse | ValueError]:
        """Answer several requests in one call of the models; a request that cannot be scored gets its error."""
        answers: list[ScoreResponse | ValueError | None] = [None] * len(requests)
        made: list[_Made] = []
        for place, request in enumerate(requests):
            try:
                made.append(self._make(place, request))
            except ValueError as error:
                answers[place] = error
        if made:
            started = time.perf_counter()
            scores = self.scorer.score(*stack([one.features for one in made], range(len(made))))
            seconds = time.perf_counter() - started
            ends = np.cumsum([len(one.features.rows) for one in made])
            for one, end in zip(made, ends.tolist()):
                own = scores.slice(end - len(one.features.rows), end)
                answers[one.place] = self._response(requests[one.place], one, own, seconds)
        return [answer for answer in answers if answer is not None]

    def click_logits(self, request: ScoreRequest) -> np.ndarray:
        """Position-free click logits of a request's candidates in their order, float32 [n]."""
        features = self._features(request)
        return self.scorer.score(features.rows, features.pairs, features.tokens).click_logit

    def _make(self, place: int, request: ScoreRequest) -> "_Made":
        started = time.perf_counter()
        unscored: list[str] = []
        try:
            features = self._features(request)
        except UnknownItems as error:
            unscored = error.item_ids
            unknown = set(unscored)
            kept = [entry for entry in request.candidates if _item_id(entry) not in unknown]
            if not kept:
                raise
            request = request.model_copy(update={"candidates": kept})
            features = self._features(request)
        degraded = self._degraded() if self._degraded else []
        return _Made(place, features, unscored, degraded, time.perf_counter() - started)

    def _features(self, request: ScoreRequest) -> RequestFeatures:
        now = time.time() if request.context.ts is None else request.context.ts
        return self.features.request(request.user_id, request.query, request.plain_candidates(), now)

    def _response(self, request: ScoreRequest, made: "_Made", scores: Scores, seconds: float) -> ScoreResponse:
        bundle, features = self.scorer.bundle, made.features
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
            unscored=made.unscored,
            degraded=made.degraded,
            seconds={"features": round(made.seconds, 5), "model": round(seconds, 5)},
        )


@dataclass(frozen=True)
class _Made:
    """A request's features, and what was missing for them."""

    place: int
    features: RequestFeatures
    unscored: list[str]
    degraded: list[str]
    seconds: float


def _item_id(candidate: str | CandidateItem) -> str:
    return candidate if isinstance(candidate, str) else candidate.item_id


def _ordered(request: ScoreRequest, features: RequestFeatures, scores: Scores) -> list[ScoredCandidate]:
    order = np.argsort(-scores.click_logit, kind="stable")[: request.top_k].tolist()
    score, probability, levels, expected, tau = (
        values.tolist()
        for values in (
            scores.click_logit,
            scores.click_probability,
            scores.level_probabilities,
            scores.expected_level,
            scores.incentive,
        )
    )
    return [
        ScoredCandidate(
            rank=rank,
            item_id=features.items[place].item_id,
            title=features.items[place].title,
            price=features.items[place].price,
            score=score[place],
            click_probability=probability[place],
            level_probabilities=levels[place],
            expected_level=expected[place],
            tau=tau[place],
            relevance_source=features.sources[place],
            in_catalogue=features.items[place].in_catalogue,
            explanation=_explanation(features, scores, place) if request.explain else None,
        )
        for rank, place in enumerate(order, start=1)
    ]


def _explanation(features: RequestFeatures, scores: Scores, place: int) -> Explanation:
    numeric, tolerance = features.derived["numeric"], features.derived["tolerance"]
    priced = features.user_known and features.items[place].price is not None
    return Explanation(
        level_click_probabilities=scores.level_click_probabilities[place].tolist(),
        without_tau=float(expit(scores.click_logit[place] - scores.incentive[place])),
        acceptance=float(np.exp(tolerance["predictive_click"][place])),
        above_threshold=float(tolerance["above_threshold"][place]),
        rates={name: float(np.exp(numeric[f"{name}_rate"][place])) for name in _RATES},
        price_above_usual=float(numeric["price_above_user"][place]) if priced else None,
    )

"""A bundle answering requests: features as of now, the Scorer, the final order. HTTP and batch both end here."""

import time
from pathlib import Path

import numpy as np

from prectr.features.online import OnlineFeatures, RequestFeatures
from prectr.protocol import ScoredCandidate, ScoreRequest, ScoreResponse, Tolerance
from prectr.scoring import Scorer, Scores


class RankingService:
    """Scores requests with one bundle.

    Args:
        bundle: the directory that `prectr train` published.
        threads: ONNX Runtime threads of one call; 0 = all cores.
        int8: run the encoders in their int8 form.

    Raises:
        UsageError: no bundle there, or it has no int8 encoders.
    """

    def __init__(self, bundle: Path, threads: int = 1, int8: bool = False) -> None:
        self.scorer = Scorer(bundle, threads=threads, int8=int8)
        self.features = OnlineFeatures(self.scorer.bundle, self.scorer.relevance)

    def rank(self, request: ScoreRequest) -> ScoreResponse:
        """Score and order the candidates of a request by click probability; ties keep the request's order.

        Raises:
            ValueError: a candidate is unknown and came without a title.
        """
        started = time.perf_counter()
        now = time.time() if request.ts is None else request.ts
        features = self.features.request(request.user_id, request.query, request.plain_candidates(), now)
        featured = time.perf_counter()
        scores = self.scorer.score(features.rows, features.pairs, features.tokens)
        scored = time.perf_counter()
        bundle = self.scorer.bundle
        return ScoreResponse(
            model=bundle.name,
            version=bundle.version,
            user_known=features.user_known,
            query_known=features.query_known,
            earlier_requests=features.earlier_requests,
            user_tolerance=Tolerance(mean=features.user_tolerance[0], deviation=features.user_tolerance[1]),
            query_tolerance=Tolerance(mean=features.query_tolerance[0], deviation=features.query_tolerance[1]),
            results=_ordered(request, features, scores),
            seconds={"features": round(featured - started, 5), "model": round(scored - featured, 5)},
        )


def _ordered(request: ScoreRequest, features: RequestFeatures, scores: Scores) -> list[ScoredCandidate]:
    order = np.argsort(-scores.click_logit, kind="stable")[: request.top_k]
    ids = [entry if isinstance(entry, str) else entry.item_id for entry in request.candidates]
    probability, expected = scores.click_probability, scores.expected_level
    return [
        ScoredCandidate(
            rank=rank,
            item_id=ids[place],
            title=features.titles[place],
            click_probability=float(probability[place]),
            level_probabilities=[float(value) for value in scores.level_probabilities[place]],
            expected_level=float(expected[place]),
            incentive=float(scores.incentive[place]),
            relevance_source=features.sources[place],
        )
        for rank, place in enumerate(order.tolist(), start=1)
    ]

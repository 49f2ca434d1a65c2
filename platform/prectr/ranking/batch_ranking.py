"""Scoring of many requests with the features and the Scorer that serving uses.

Requests of one query share their candidates, so a batch holds each pair of query and item once and encodes its text
once. Bundles of the same samples have the same online state, so their features are computed once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prectr.core.artifacts import file_digests
from prectr.core.errors import PrectrError, shorten
from prectr.features.inputs import Histories, PaddedBehaviours, PairArrays, RowArrays
from prectr.ranking.candidates import CandidatePool
from prectr.ranking.features import OnlineFeatures, RequestFeatures
from prectr.ranking.scoring import Scorer
from prectr.relevance.tokenisation import PairTokens

BATCH_REQUESTS = 512
"""Requests that the models score in one call."""


@dataclass(frozen=True)
class PoolRequest:
    """A request. Requests with the same `pool` have the same normalised query and the same candidates."""

    user_id: str
    query: str
    candidates: Sequence[str]
    now: float
    pool: int


class BatchRanking:
    """Scores requests with several bundles. Call `close` at the end.

    Args:
        bundles: directories that `prectr train` published.
        threads: ONNX Runtime threads; 0 = all cores.

    Raises:
        UsageError: a directory holds no bundle.
    """

    def __init__(self, bundles: Sequence[Path], threads: int = 0) -> None:
        self._scorers = [Scorer(bundle, threads=threads) for bundle in bundles]
        self._features: list[tuple[OnlineFeatures, list[int]]] = []
        states: dict[tuple[str, ...], int] = {}
        for number, scorer in enumerate(self._scorers):
            path = scorer.bundle.path
            files = [path / "feature_spec.json", path / "preferences.json"]
            files += [file for part in ("online", "relevance") for file in sorted((path / part).iterdir())]
            state = states.setdefault(tuple(file_digests(files).values()), len(self._features))
            if state == len(self._features):
                self._features.append((OnlineFeatures(scorer.bundle, scorer.relevance), []))
            self._features[state][1].append(number)

    def close(self) -> None:
        """Unmap the bundles' online states."""
        for online, _ in self._features:
            online.close()

    def click_logits(
        self, requests: Sequence[PoolRequest], advance: Callable[[int], None] | None = None
    ) -> list[list[np.ndarray]]:
        """Compute position-free click logits, float32 [bundle][request][candidate].

        Args:
            requests: in any order; scoring is faster if many share a pool.
            advance: called with the number of requests of each scored batch.

        Raises:
            PrectrError: a bundle's catalogue lacks a candidate.
        """
        logits = [[np.empty(0, np.float32)] * len(requests) for _ in self._scorers]
        for batch in _batches(requests):
            for online, numbers in self._features:
                features = self._read_features(online, [requests[row] for row in batch])
                rows, pairs, tokens = stack_requests(features, [requests[row].pool for row in batch])
                ends = np.cumsum([len(request.rows) for request in features])[:-1]
                for number in numbers:
                    scores = self._scorers[number].score(rows, pairs, tokens)
                    for row, part in zip(batch, np.split(scores.click_logit, ends), strict=True):
                        logits[number][row] = part
            if advance is not None:
                advance(len(batch))
        return logits

    def _read_features(self, online: OnlineFeatures, requests: Sequence[PoolRequest]) -> list[RequestFeatures]:
        pools: dict[int, CandidatePool] = {}
        try:
            for request in requests:
                if request.pool not in pools:
                    pools[request.pool] = online.pool(request.query, request.candidates)
        except ValueError as error:
            raise PrectrError(
                f"{self._scorers[0].bundle.path}: was trained on another catalogue: {shorten(error)}"
            ) from None
        return [online.of_pool(request.user_id, pools[request.pool], request.now) for request in requests]


def _batches(requests: Sequence[PoolRequest]) -> Iterator[list[int]]:
    """Split the requests' numbers into batches, with the requests of a pool next to each other."""
    order = np.argsort([request.pool for request in requests], kind="stable").tolist()
    for start in range(0, len(order), BATCH_REQUESTS):
        yield order[start : start + BATCH_REQUESTS]


def stack_requests(
    features: Sequence[RequestFeatures], pools: Sequence[int]
) -> tuple[RowArrays, PairArrays, PairTokens]:
    """Concatenate the rows of several requests; the pairs of a pool are stored once.

    Args:
        features: features of each request.
        pools: number of each request's pool; requests of a pool have the same query and candidates.
    """
    first_of_pool: dict[int, tuple[int, RequestFeatures]] = {}
    pair_count = 0
    for request, pool in zip(features, pools, strict=True):
        if pool not in first_of_pool:
            first_of_pool[pool] = (pair_count, request)
            pair_count += len(request.rows)
    distinct = [request for _, request in first_of_pool.values()]
    candidates = [len(request.rows) for request in distinct]
    pairs = PairArrays(
        fields=np.concatenate([request.pairs.fields[:size] for request, size in zip(distinct, candidates)]),
        level=np.concatenate([request.pairs.level[:size] for request, size in zip(distinct, candidates)]),
        match=np.concatenate([request.pairs.match for request in distinct]),
        levels=np.concatenate([request.pairs.levels for request in distinct]),
    )
    tokens = PairTokens.concatenate([request.tokens for request in distinct])
    parts = [request.rows for request in features]
    offsets = [first_of_pool[pool][0] for pool in pools]
    return (
        RowArrays(
            pair=np.concatenate([offset + part.pair for offset, part in zip(offsets, parts)]).astype(np.int32),
            request=np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
            categorical=np.concatenate([part.categorical for part in parts]),
            numeric=np.concatenate([part.numeric for part in parts]),
            tolerance=np.concatenate([part.tolerance for part in parts]),
            query_preference=np.concatenate([part.query_preference for part in parts]),
            histories=Histories(
                _concatenate([part.histories.user for part in parts]),
                _concatenate([part.histories.query for part in parts]),
            ),
        ),
        pairs,
        tokens,
    )


def _concatenate(parts: Sequence[PaddedBehaviours]) -> PaddedBehaviours:
    return PaddedBehaviours(
        np.concatenate([part.fields for part in parts]), np.concatenate([part.lengths for part in parts])
    )

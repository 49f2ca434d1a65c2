"""Many requests at once through the features and the Scorer that serving uses: the order serving would have given.

Requests of one query share their candidates, so a batch holds each pair of query and item once, and its text is encoded
once. Bundles made of the same samples share their online state, so features are made once for all of them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prectr.core.artifacts import file_digests
from prectr.core.errors import PrectrError
from prectr.features.inputs import Histories, PaddedBehaviours, PairArrays, RowArrays
from prectr.ranking.features import CandidatePool, OnlineFeatures, RequestFeatures
from prectr.ranking.scoring import Scorer
from prectr.relevance.tokenisation import PairTokens

BATCH_REQUESTS = 512


@dataclass(frozen=True)
class PoolRequest:
    """One request; requests of the same `pool` have the same query, however typed, and the same candidates."""

    user_id: str
    query: str
    candidates: Sequence[str]
    now: float
    pool: int


class BatchRanking:
    """Scores requests with several bundles; close it when done.

    Args:
        bundles: directories that `prectr train` published.
        threads: ONNX Runtime threads; 0 = all cores.

    Raises:
        UsageError: no bundle there.
    """

    def __init__(self, bundles: Sequence[Path], threads: int = 0) -> None:
        self._scorers = [Scorer(bundle, threads=threads) for bundle in bundles]
        self._features: list[tuple[OnlineFeatures, list[int]]] = []
        states: dict[tuple[str, ...], int] = {}
        for number, scorer in enumerate(self._scorers):
            path = scorer.bundle.path
            read = [path / "feature_spec.json", path / "preferences.json"]
            read += [file for part in ("online", "relevance") for file in sorted((path / part).iterdir())]
            known = states.setdefault(tuple(file_digests(read).values()), len(self._features))
            if known == len(self._features):
                self._features.append((OnlineFeatures(scorer.bundle, scorer.relevance), []))
            self._features[known][1].append(number)

    def close(self) -> None:
        """Unmap the bundles' online states."""
        for online, _ in self._features:
            online.close()

    def click_logits(
        self, requests: Sequence[PoolRequest], advance: Callable[[int], None] | None = None
    ) -> list[list[np.ndarray]]:
        """Position-free click logits, float32 [bundle][request][candidate].

        Args:
            requests: in any order; quickest where many share a pool.
            advance: told how many requests were scored.

        Raises:
            PrectrError: a bundle does not know a candidate.
        """
        logits = [[np.empty(0, np.float32)] * len(requests) for _ in self._scorers]
        for batch in _batches(requests):
            for online, numbers in self._features:
                features = self._of(online, [requests[place] for place in batch])
                rows, pairs, tokens = stack(features, [requests[place].pool for place in batch])
                ends = np.cumsum([len(made.rows) for made in features])[:-1]
                for number in numbers:
                    scores = self._scorers[number].score(rows, pairs, tokens)
                    for place, part in zip(batch, np.split(scores.click_logit, ends), strict=True):
                        logits[number][place] = part
            if advance is not None:
                advance(len(batch))
        return logits

    def _of(self, online: OnlineFeatures, requests: Sequence[PoolRequest]) -> list[RequestFeatures]:
        pools: dict[int, CandidatePool] = {}
        try:
            for request in requests:
                if request.pool not in pools:
                    pools[request.pool] = online.pool(request.query, request.candidates)
        except ValueError as error:
            raise PrectrError(f"{self._scorers[0].bundle.path}: was trained on another catalogue: {error}") from None
        return [online.of_pool(request.user_id, pools[request.pool], request.now) for request in requests]


def _batches(requests: Sequence[PoolRequest]) -> Iterator[list[int]]:
    """Places of the requests, those of a pool next to each other."""
    order = np.argsort([request.pool for request in requests], kind="stable").tolist()
    for start in range(0, len(order), BATCH_REQUESTS):
        yield order[start : start + BATCH_REQUESTS]


def stack(features: Sequence[RequestFeatures], pools: Sequence[int]) -> tuple[RowArrays, PairArrays, PairTokens]:
    """The rows of several requests as one; what is fixed about a pair is kept once a pool.

    Args:
        features: of each request.
        pools: which requests have the same candidates; one a request.
    """
    first: dict[int, tuple[int, RequestFeatures]] = {}
    kept = 0
    for made, pool in zip(features, pools, strict=True):
        if pool not in first:
            first[pool] = (kept, made)
            kept += len(made.rows)
    distinct = [made for _, made in first.values()]
    candidates = [len(made.rows) for made in distinct]
    pairs = PairArrays(
        fields=np.concatenate([made.pairs.fields[:size] for made, size in zip(distinct, candidates)]),
        level=np.concatenate([made.pairs.level[:size] for made, size in zip(distinct, candidates)]),
        match=np.concatenate([made.pairs.match for made in distinct]),
        levels=np.concatenate([made.pairs.levels for made in distinct]),
    )
    lengths = np.concatenate([made.tokens.lengths for made in distinct])
    tokens = PairTokens(
        np.concatenate([made.tokens.values for made in distinct]),
        np.concatenate([[0], np.cumsum(lengths)]),
        np.concatenate([made.tokens.query_tokens for made in distinct]),
    )
    rows = [made.rows for made in features]
    return (
        RowArrays(
            pair=np.concatenate([first[pool][0] + made.pair for made, pool in zip(rows, pools)]).astype(np.int32),
            request=np.repeat(np.arange(len(rows)), [len(made) for made in rows]),
            categorical=np.concatenate([made.categorical for made in rows]),
            numeric=np.concatenate([made.numeric for made in rows]),
            tolerance=np.concatenate([made.tolerance for made in rows]),
            query_preference=np.concatenate([made.query_preference for made in rows]),
            histories=Histories(
                _joined([made.histories.user for made in rows]), _joined([made.histories.query for made in rows])
            ),
        ),
        pairs,
        tokens,
    )


def _joined(parts: Sequence[PaddedBehaviours]) -> PaddedBehaviours:
    return PaddedBehaviours(
        np.concatenate([part.fields for part in parts]), np.concatenate([part.lengths for part in parts])
    )

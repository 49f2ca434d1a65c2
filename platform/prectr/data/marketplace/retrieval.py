"""Coarse ranking: a pool of 60 candidates for each query, by a noisy estimate that also compares words.  [ours]

    coarse = 0.50 (r + noise) + 0.30 share of the query's words in the title + 0.15 popularity

The noise depends on the (query, item) only, so the pool of a query is the same in the whole log.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse
from scipy.special import ndtri

from prectr.data.marketplace import constants
from prectr.data.marketplace.catalogue import Catalogue, Floats, taxonomy
from prectr.data.marketplace.queries import Queries
from prectr.data.marketplace.randomness import pair_uniform
from prectr.data.marketplace.relevance import Indices, grade_pairs

COARSE_SALT = 2
CELLS = 2_000_000  # pairs graded at once; it limits memory


@dataclass(frozen=True)
class Pools:
    """The candidates of each query, best first. All arrays are (Q, POOL); empty slots have item -1 and score -inf.

    `judged` says whether the relevance comes from a human judgment; None for the invented catalogue.
    """

    item: npt.NDArray[np.int32]
    score: npt.NDArray[np.float32]
    grade: npt.NDArray[np.int8]
    r: npt.NDArray[np.float32]
    judged: npt.NDArray[np.bool_] | None = None


def empty_pools(queries: int, with_judged: bool = False) -> Pools:
    """Pools whose slots are all empty."""
    shape = (queries, constants.POOL)
    return Pools(
        item=np.full(shape, -1, np.int32),
        score=np.full(shape, -np.inf, np.float32),
        grade=np.zeros(shape, np.int8),
        r=np.zeros(shape, np.float32),
        judged=np.zeros(shape, bool) if with_judged else None,
    )


def coarse_score(
    query: Indices, item: Indices, r: npt.NDArray[np.float32], lexical: npt.NDArray[np.float32], popularity: Floats
) -> npt.NDArray[np.float32]:
    """Score that orders a pool, from the item's popularity and the share of the query's words in its title."""
    noise = constants.COARSE_NOISE * ndtri(pair_uniform(query, item, COARSE_SALT) * 0.9998 + 0.0001)
    score = (
        constants.COARSE_RELEVANCE * (r + noise)
        + constants.COARSE_LEXICAL * lexical
        + constants.COARSE_POPULARITY * popularity
    )
    return score.astype(np.float32)


def retrieve(queries: Queries, items: Catalogue) -> Pools:
    """Fill the pool of every query from the listings of its top category that it can reach."""
    pools = empty_pools(len(queries))
    query_words, item_words = _word_matrices(pa.array(queries.texts), items.titles)
    query_top, item_top = queries.top, taxonomy().type_top[items.type]
    for top in np.unique(query_top):
        candidates = np.flatnonzero(item_top == top)
        words = item_words[candidates].T.tocsc()
        reach = min(constants.LISTINGS_SEEN, len(candidates))
        rows_of_top = np.flatnonzero(query_top == top)
        step = max(1, CELLS // len(candidates))
        for start in range(0, len(rows_of_top), step):
            rows = rows_of_top[start : start + step]
            # Listings have a random order. A window around the item that suggested the intent is the query's region.
            centre = np.searchsorted(candidates, queries.source[rows])
            seen = (centre[:, None] + np.arange(reach) - reach // 2) % len(candidates)
            item = candidates[seen]
            grade, r = grade_pairs(queries, items, rows[:, None], item)
            lexical = np.take_along_axis((query_words[rows] @ words).toarray(), seen, axis=1)
            score = coarse_score(rows[:, None], item, r, lexical, items.popularity[item])
            width = min(constants.POOL, reach)
            best = np.argsort(-score, axis=1, kind="stable")[:, :width]
            pools.item[rows, :width] = np.take_along_axis(item, best, axis=1)
            pools.score[rows, :width] = np.take_along_axis(score, best, axis=1)
            pools.grade[rows, :width] = np.take_along_axis(grade, best, axis=1)
            pools.r[rows, :width] = np.take_along_axis(r, best, axis=1)
    return pools


def _word_matrices(queries: pa.Array, titles: pa.Array) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Word matrices of the V words: (Q, V), rows sum to 1 over a query's words; and (N, V), 0/1 for a title's words.

    Words are separated by white space here, and not as in `core.text`: the closed vocabulary has no punctuation, and
    another rule would change the pools of existing logs.
    """
    lists = pc.utf8_split_whitespace(pc.utf8_lower(pa.concat_arrays([queries, titles])))
    codes = pc.dictionary_encode(lists.flatten()).indices.to_numpy(zero_copy_only=False).copy()
    offsets = lists.offsets.to_numpy().copy()
    counts = sparse.csr_matrix((np.ones(len(codes), np.float32), codes, offsets))
    counts.sum_duplicates()
    counts.data[:] = 1.0
    per_row = np.diff(counts.indptr).astype(np.float32)
    query_part = sparse.diags(1.0 / per_row[: len(queries)]) @ counts[: len(queries)]
    return sparse.csr_matrix(query_part, dtype=np.float32), counts[len(queries) :]

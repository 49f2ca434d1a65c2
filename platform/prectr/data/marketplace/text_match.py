"""Lexical similarity of real queries and titles: TF-IDF cosines and shares of words, sparse or in blocks.

Queries and titles are numbered by row. Document frequencies count both. So a query's word that no title holds has a
weight too, and lowers the cosine of every title. Words are those of scikit-learn's pattern `\\w+`, which keeps the
underscore, and not those of `core.text`: another rule would change the pools of existing logs.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

from prectr.data.marketplace.catalogue import Floats
from prectr.data.marketplace.relevance import Indices

PAIRS_AT_ONCE = 200_000
CELLS = 8_000_000  # of a dense block of queries x titles; it limits memory


class TextMatch:
    """Similarity of Q queries and N titles."""

    def __init__(self, queries: Sequence[str], titles: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectoriser = TfidfVectorizer(token_pattern=r"(?u)\w+", sublinear_tf=True, dtype=np.float32)
        weights = vectoriser.fit_transform([*titles, *queries])
        self._titles: sparse.csr_matrix = weights[: len(titles)]
        self._queries: sparse.csr_matrix = weights[len(titles) :]
        self._titles_by_word: sparse.csr_matrix = self._titles.T.tocsr()
        self._title_words = _binary(self._titles)
        query_words = _binary(self._queries)
        self.title_lengths: Floats = np.diff(self._titles.indptr).astype(np.float64)
        """(N,) numbers of distinct words of the titles."""
        self.query_information: Floats = np.asarray(query_words @ vectoriser.idf_, np.float64)
        """(Q,) sums of the inverse document frequencies of the queries' words; many and rare words give a large sum."""
        per_query = np.maximum(np.diff(query_words.indptr), 1)
        self._query_shares = sparse.csr_matrix(sparse.diags(1.0 / per_query) @ query_words, dtype=np.float32)

    def cosine(self, query: Indices, item: Indices) -> npt.NDArray[np.float32]:
        """TF-IDF cosine of n pairs of row numbers, (n,)."""
        return _products(self._queries, self._titles, query, item)

    def share(self, query: Indices, item: Indices) -> npt.NDArray[np.float32]:
        """Share of the query's distinct words that the title holds, of n pairs of row numbers, (n,)."""
        return _products(self._query_shares, self._title_words, query, item)

    def cosine_blocks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Cosines of all pairs in blocks: number of the block's first query, and cosines (queries of the block, N)."""
        step = max(1, CELLS // self._titles.shape[0])
        for start in range(0, self._queries.shape[0], step):
            yield start, (self._queries[start : start + step] @ self._titles_by_word).toarray()


def _binary(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    return sparse.csr_matrix((np.ones_like(matrix.data), matrix.indices, matrix.indptr), matrix.shape)


def _products(
    left: sparse.csr_matrix, right: sparse.csr_matrix, left_rows: Indices, right_rows: Indices
) -> npt.NDArray[np.float32]:
    """Inner product of row `left_rows[i]` of `left` and row `right_rows[i]` of `right`, for each i."""
    products = np.zeros(len(left_rows), np.float32)
    for start in range(0, len(left_rows), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        products[part] = np.asarray(left[left_rows[part]].multiply(right[right_rows[part]]).sum(axis=1)).ravel()
    return products

"""The lexical baseline: what every model of relevance must beat."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class LexicalBaseline:
    """Baseline without a language model: TF-IDF cosine of query and title, mapped to level probabilities [ours].

    `P(grade >= j | cosine)` is an isotonic regression for each j; level probabilities are the differences.

    Args:
        titles: titles of the catalogue, which give the inverse document frequencies.

    >>> import numpy as np
    >>> titles = ["red shoe", "blue shoe", "green lamp", "old lamp"]
    >>> baseline = LexicalBaseline(titles).fit(["red shoe"] * 4, titles, np.array([3, 1, 0, 0]))
    >>> probabilities = baseline.probabilities(["red shoe", "red shoe"], ["red shoe", "green lamp"])
    >>> probabilities.argmax(axis=1).tolist()
    [3, 0]
    """

    def __init__(self, titles: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectoriser: Any = TfidfVectorizer(token_pattern=r"(?u)\w+", sublinear_tf=True)
        self._vectoriser.fit(titles)
        self._above: list[Any] = []

    def cosine(self, queries: Sequence[str], titles: Sequence[str]) -> np.ndarray:
        """Compute the TF-IDF cosine of each pair: float64 [n]."""
        product = self._vectoriser.transform(queries).multiply(self._vectoriser.transform(titles))
        return np.asarray(product.sum(axis=1)).ravel()

    def fit(self, queries: Sequence[str], titles: Sequence[str], grades: np.ndarray) -> "LexicalBaseline":
        """Fit the isotonic regressions on judged pairs; grades are integers 0..3 [n]. Returns itself."""
        from sklearn.isotonic import IsotonicRegression

        cosine = self.cosine(queries, titles)
        self._above = [
            IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(cosine, grades >= level)
            for level in (1, 2, 3)
        ]
        return self

    def probabilities(self, queries: Sequence[str], titles: Sequence[str]) -> np.ndarray:
        """Compute level probabilities float64 [n, 4]."""
        cosine = self.cosine(queries, titles)
        above = np.stack([np.ones_like(cosine), *(step.predict(cosine) for step in self._above), np.zeros_like(cosine)])
        # The three events are nested, so P(>= 3) must not exceed P(>= 2).
        above = np.minimum.accumulate(above, axis=0)
        return (above[:-1] - above[1:]).T

"""Relevance from shared words: match features for the ranker, and the baseline that every model must beat.

Features have no state: a pair's values depend on its two texts only, so that offline and online values are equal
without any fitted parameters.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from prectr.core.text import lower_words

MATCH_FEATURES = (
    "match_query_words",
    "match_query_digits",
    "match_title_words",
    "match_query_trigrams",
    "match_trigrams",
    "match_phrase",
    "match_query_length",
    "match_title_length",
)


def match_features(queries: Sequence[str], titles: Sequence[str]) -> dict[str, np.ndarray]:
    """Compute the overlaps of n pairs, each float32 [n]. Texts are compared in lower case.

    | feature | value |
    |---|---|
    | match_query_words | share of the query's distinct words that the title holds |
    | match_query_digits | the same over words with a digit (model numbers, sizes); 1 if the query has none |
    | match_title_words | share of the title's distinct words that the query holds |
    | match_query_trigrams | share of the query's character trigrams that the title holds |
    | match_trigrams | Jaccard index of the two trigram sets |
    | match_phrase | 1 if the title holds the whole query as a substring |
    | match_query_length, match_title_length | log(1 + distinct words) |
    """
    query_sets, query_of = _text_sets(queries, "query")
    title_sets, title_of = _text_sets(titles, "title")
    pairs = pl.concat([query_sets[query_of], title_sets[title_of]], how="horizontal")
    shared_words = pl.col("query_words").list.set_intersection("title_words").list.len()
    shared_trigrams = pl.col("query_trigrams").list.set_intersection("title_trigrams").list.len()
    counts = pairs.select(
        shared=shared_words,
        shared_digits=pl.col("query_digits").list.set_intersection("title_words").list.len(),
        trigrams=shared_trigrams,
        query_words=pl.col("query_words").list.len(),
        query_digits=pl.col("query_digits").list.len(),
        title_words=pl.col("title_words").list.len(),
        query_trigrams=pl.col("query_trigrams").list.len(),
        title_trigrams=pl.col("title_trigrams").list.len(),
        phrase=pl.col("title_text").str.contains(pl.col("query_text"), literal=True),
    )
    count = {name: counts[name].to_numpy().astype(np.float32) for name in counts.columns}
    union = count["query_trigrams"] + count["title_trigrams"] - count["trigrams"]
    digits = count["query_digits"]
    features = {
        "match_query_words": count["shared"] / np.maximum(count["query_words"], 1),
        "match_query_digits": np.where(digits > 0, count["shared_digits"] / np.maximum(digits, 1), 1.0),
        "match_title_words": count["shared"] / np.maximum(count["title_words"], 1),
        "match_query_trigrams": count["trigrams"] / np.maximum(count["query_trigrams"], 1),
        "match_trigrams": count["trigrams"] / np.maximum(union, 1),
        "match_phrase": count["phrase"],
        "match_query_length": np.log1p(count["query_words"]),
        "match_title_length": np.log1p(count["title_words"]),
    }
    return {name: features[name].astype(np.float32) for name in MATCH_FEATURES}


def _text_sets(texts: Sequence[str], name: str) -> tuple[pl.DataFrame, np.ndarray]:
    """Words, words with digits and trigrams of each distinct text, and the index of each row's distinct text."""
    index_of: dict[str, int] = {}
    row_to_distinct = np.fromiter((index_of.setdefault(text, len(index_of)) for text in texts), np.int64, len(texts))
    frame = pl.DataFrame({"text": list(index_of)}, schema={"text": pl.String}).select(
        pl.col("text").str.to_lowercase(), words=lower_words(pl.col("text")).list.unique()
    )
    words = pl.col("words")
    sets = frame.select(
        pl.col("text").alias(f"{name}_text"),
        words.alias(f"{name}_words"),
        words.list.filter(pl.element().str.contains(r"\p{N}")).alias(f"{name}_digits"),
    )
    return sets.with_columns(_trigrams(sets[f"{name}_text"]).alias(f"{name}_trigrams")), row_to_distinct


def _trigrams(texts: pl.Series) -> pl.Series:
    """Distinct trigrams of the UTF-8 bytes of ` text `, as lists of UInt32."""
    padded = (" " + texts + " ").to_arrow().cast(pa.large_binary())
    offsets = np.frombuffer(padded.buffers()[1], np.int64)[padded.offset : padded.offset + len(padded) + 1]
    data = np.frombuffer(padded.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]].astype(np.uint32)
    offsets = offsets - offsets[0]
    if not len(padded):
        return pl.Series([], dtype=pl.List(pl.UInt32))
    codes = np.zeros(len(data), np.uint32)
    codes[:-2] = (data[:-2] << 16) | (data[1:-1] << 8) | data[2:]
    # A trigram starts at every byte of a text except its last two (a padded text has at least two bytes).
    kept = np.ones(len(data), bool)
    kept[offsets[1:] - 1] = False
    kept[offsets[1:] - 2] = False
    lists = pa.LargeListArray.from_arrays(
        np.concatenate([[0], np.cumsum(np.diff(offsets) - 2)]), pa.array(codes[kept], pa.uint32())
    )
    return pl.Series(lists).list.unique()


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

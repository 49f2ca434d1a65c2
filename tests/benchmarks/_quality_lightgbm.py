"""The "ordinary engineering" reference: LightGBM on the same point-in-time features as the rankers, position included.

It reads every number and category that any ranker reads of a row (levels, lexical match, tolerance, query preference),
and the text of query and title as scikit-learn's similarities: words and character n-grams weighted by inverse document
frequency, and the same in a latent space. It reads no sequences. Chosen by validation log loss; served position-free by
setting the position to 1.
"""

from functools import cache
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import polars as pl
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from prectr.training.data import RankerData

LATENT_WIDTHS = (16, 64)


@cache
def text_similarities(samples: Path, tables: Path) -> np.ndarray:
    """Cosines of query and title of each pair of some samples, float32 [P, 6].

    For words, then for character n-grams: by TF-IDF, and by truncated singular value decompositions of it (latent
    semantic analysis). All are fitted on the titles of the catalogue.
    """
    items = pl.read_parquet(tables / "items.parquet", columns=["item_id", "title"])
    pairs = pl.read_parquet(samples / "pairs.parquet", columns=["query", "item_id"])
    pairs = pairs.join(items, on="item_id", how="left", maintain_order="left").fill_null("")
    queries, titles = (pairs[name].unique().sort() for name in ("query", "title"))
    at = [texts.search_sorted(pairs[name]).to_numpy() for name, texts in (("query", queries), ("title", titles))]
    columns = []
    for analyzer, n_grams in (("word", (1, 1)), ("char_wb", (3, 5))):
        weights = TfidfVectorizer(analyzer=analyzer, ngram_range=n_grams, min_df=2, max_features=200_000)
        weights.fit(items["title"].fill_null("").to_list())
        sparse = [weights.transform(texts.to_list()) for texts in (queries, titles)]
        columns.append(np.asarray(sparse[0][at[0]].multiply(sparse[1][at[1]]).sum(1)).ravel())
        for width in LATENT_WIDTHS:
            latent = TruncatedSVD(min(width, sparse[1].shape[1] - 1), random_state=0).fit(sparse[1])
            query, title = (normalize(latent.transform(texts)) for texts in sparse)
            columns.append(np.einsum("pd,pd->p", query[at[0]], title[at[1]]))
    return np.stack(columns, 1).astype(np.float32)


def matrix(data: RankerData, position: np.ndarray | int, tables: Path) -> np.ndarray:
    """Features of rows of a log at a position: float32 [n, F]; categories come first."""
    rows, pairs = data.rows, data.samples.pairs
    at = np.broadcast_to(np.asarray(position), len(rows))
    return np.concatenate(
        [
            rows.categorical.astype(np.float32),
            at[:, None].astype(np.float32),
            rows.numeric,
            rows.tolerance,
            rows.query_preference,
            pairs.match[rows.pair],
            text_similarities(data.samples.path, tables)[rows.pair],
            np.exp(pairs.match[rows.pair, :4]) @ np.arange(4, dtype=np.float32)[:, None],
        ],
        axis=1,
    )


def train(
    training: RankerData, validation: RankerData, tables: Path, seed: int, threads: int
) -> tuple[Any, dict[str, float]]:
    """Fit with early stopping; the booster and how many rounds it took."""
    categories = list(range(training.rows.categorical.shape[1]))
    parameters = {
        "objective": "binary",
        "learning_rate": 0.05,
        "num_leaves": 63,
        "min_data_in_leaf": 200,
        "feature_fraction": 0.7,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 5.0,
        "cat_smooth": 50,
        "num_threads": threads,
        "seed": seed,
        "verbose": -1,
    }
    sets = [
        lightgbm.Dataset(
            matrix(data, data.position, tables), data.clicked, categorical_feature=categories, free_raw_data=True
        )
        for data in (training, validation)
    ]
    booster = lightgbm.train(
        parameters, sets[0], 1000, valid_sets=[sets[1]], callbacks=[lightgbm.early_stopping(30, verbose=False)]
    )
    return booster, {"rounds": float(booster.best_iteration)}


def logits(booster: Any, data: RankerData, position: np.ndarray | int, tables: Path) -> np.ndarray:
    """Raw scores of rows at a position, float64 [n]."""
    answered: np.ndarray = booster.predict(matrix(data, position, tables), raw_score=True)
    return answered

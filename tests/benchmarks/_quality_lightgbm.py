"""The "ordinary engineering" reference: LightGBM on the same point-in-time features as the rankers, position included.

It reads every number and category that any ranker reads of a row (levels, lexical match, tolerance, query preference),
but no text and no sequences. Chosen by validation log loss; served position-free by setting the position to 1.
"""

from typing import Any

import lightgbm
import numpy as np

from prectr.training.data import RankerData


def matrix(data: RankerData, position: np.ndarray | int) -> np.ndarray:
    """Features of rows at a position: float32 [n, F]; categories come first."""
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
            np.exp(pairs.match[rows.pair, :4]) @ np.arange(4, dtype=np.float32)[:, None],
        ],
        axis=1,
    )


def train(training: RankerData, validation: RankerData, seed: int, threads: int) -> tuple[Any, dict[str, float]]:
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
        lightgbm.Dataset(matrix(data, data.position), data.clicked, categorical_feature=categories, free_raw_data=True)
        for data in (training, validation)
    ]
    booster = lightgbm.train(
        parameters, sets[0], 1000, valid_sets=[sets[1]], callbacks=[lightgbm.early_stopping(30, verbose=False)]
    )
    return booster, {"rounds": float(booster.best_iteration)}


def logits(booster: Any, data: RankerData, position: np.ndarray | int) -> np.ndarray:
    """Raw scores of rows at a position, float64 [n]."""
    answered: np.ndarray = booster.predict(matrix(data, position), raw_score=True)
    return answered

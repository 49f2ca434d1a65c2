"""Order of the two sources of a pair's levels that may be wrong: the teacher's label and the encoder's score [ours].

The one that predicts human grades better has priority, measured on judged pairs of held-back queries, which neither was
trained on or calibrated with. The measure is the mean negative log-likelihood of the grades, because all that follows
reads the levels as probabilities.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.text import hash_fraction
from prectr.data.judgments import read_judged
from prectr.data.tables import Tables
from prectr.metrics import auc

UNMEASURED_WEIGHT = 0.5
"""Weight in training of a teacher's labels whose quality could not be measured."""
ENCODER_WEIGHT = 0.05
"""Weight in training of the encoder's own scores, which tell a ranker that starts from this encoder nothing new. They
only keep what levels mean."""
LEAST_PAIRS = 50
"""Pairs below which nothing is measured: the teacher has priority."""
MOST_PAIRS = 5_000
"""Pairs that are measured, at most."""
_LEAST_PROBABILITY = 1e-6


def order_of_sources(
    tables: Tables, labels: Path, score: Callable[[Sequence[str], Sequence[str]], np.ndarray]
) -> dict[str, Any]:
    """Measure teacher and encoder on the same judged pairs of held-back queries.

    Args:
        tables: canonical tables.
        labels: the artifact of `label`.
        score: level probabilities [n, 4] of n queries and n titles by the encoder.

    Returns:
        `first` ("teacher" or "encoder"), `pairs` (the number measured, 0 if there are fewer than `LEAST_PAIRS`), and
        if measured for each source `nll` (nats), `explained` (share of the entropy of the grades that it explains:
        1 - nll / entropy, at least 0) and `auc` (of the expected level for grade >= 2; None if there is one class
        only).
    """
    levels = pl.read_parquet(labels / "labels.parquet", columns=["query", "item_id", *LEVEL_COLUMNS])
    both = (
        read_judged(tables)
        .filter(pl.col("split") == "held-back")
        .join(levels, on=["query", "item_id"], how="inner")
        .sort("query", "item_id")
    )
    if len(both) < LEAST_PAIRS:
        return {"first": "teacher", "pairs": 0}
    if len(both) > MOST_PAIRS:
        names = [f"{query}\n{item}" for query, item in both.select("query", "item_id").iter_rows()]
        both = both[np.sort(np.argsort([hash_fraction(name, "order-of-sources") for name in names])[:MOST_PAIRS])]
    grades = both["grade"].to_numpy().astype(np.int64)
    predictions = {
        "teacher": both.select(LEVEL_COLUMNS).to_numpy().astype(np.float64),
        "encoder": score(both["query"].to_list(), both["title"].to_list()).astype(np.float64),
    }
    figures = {name: _figures(probabilities, grades) for name, probabilities in predictions.items()}
    first = "encoder" if figures["encoder"]["nll"] < figures["teacher"]["nll"] else "teacher"
    return {"first": first, "pairs": len(both), **figures}


def level_weights(order: Mapping[str, Any]) -> dict[str, float]:
    """Weight of each source of levels in the training of a ranker's own levels [ours], 0..1.

    A judgment has 1, and the teacher the share of the grades that its labels explain.

    Args:
        order: of `order_of_sources`.
    """
    taught = order["teacher"]["explained"] if "teacher" in order else UNMEASURED_WEIGHT
    return {"judgment": 1.0, "teacher": taught, "encoder": ENCODER_WEIGHT}


def _figures(probabilities: np.ndarray, grades: np.ndarray) -> dict[str, Any]:
    of_grade = probabilities[np.arange(len(grades)), grades]
    area = auc(grades >= 2, probabilities @ np.arange(len(LEVEL_COLUMNS)))
    nll = float(-np.log(of_grade.clip(_LEAST_PROBABILITY)).mean())
    shares = np.bincount(grades) / len(grades)
    entropy = float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())
    return {
        "nll": round(nll, 4),
        "explained": round(max(0.0, 1 - nll / entropy), 4) if entropy else 0.0,
        "auc": None if np.isnan(area) else round(area, 4),
    }

"""Quality of relevance levels: teacher, student and lexical baseline on the same held-back judged pairs.

No model was trained or calibrated on these queries. The figures:

| figure | definition |
|---|---|
| kappa | quadratic-weighted Cohen's kappa of the expected level, rounded to the nearest grade |
| macro_f1 | mean of the four grades' F1, the prediction being the most probable level |
| auc | area under the ROC curve of the expected level for grade >= 2, ties averaged |
| ndcg_10 | NDCG@10, gain 2^grade - 1, expected over ties; mean over queries of two pairs or more, one with grade > 0 |
| rmse | root mean squared error of the expected level, in grades 0..3 |

A figure is None if the pairs do not define it: only one class, or no such query.
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prectr.contracts.schema import GRADES, LEVEL_COLUMNS
from prectr.data.judgments import read_judged
from prectr.data.tables import Tables
from prectr.metrics import auc, ndcg
from prectr.metrics.agreement import macro_f1, quadratic_kappa
from prectr.metrics.columns import group_codes


def relevance_quality(tables: Tables, labels: Path | None, encoder: Path | None) -> dict[str, Any]:
    """Compute the figures of teacher, student and lexical baseline on the same held-back judged pairs.

    Args:
        tables: canonical tables.
        labels: the artifact of `label`; None leaves the teacher out.
        encoder: the artifact of `distill`; None leaves the student out.

    Returns:
        `pairs`, `queries`, `grades` (count of each), and for each of `teacher`, `student`, `lexical` a dictionary
        of the figures above. Pairs that the teacher could not label are left out for all three.
    """
    from prectr.relevance.lexical import LexicalBaseline

    judged = read_judged(tables)
    held_back = judged.filter(pl.col("split") == "held-back")
    training = judged.filter(pl.col("split") == "train")
    if labels is not None:
        labelled = pl.read_parquet(labels / "labels.parquet", columns=["query", "item_id", *LEVEL_COLUMNS])
        held_back = held_back.join(labelled, on=["query", "item_id"], how="inner").sort("query", "item_id")
    grades = held_back["grade"].to_numpy().astype(np.int64)
    facts: dict[str, Any] = {
        "pairs": len(held_back),
        "queries": held_back["query"].n_unique(),
        "grades": [int((grades == level).sum()) for level in range(4)],
    }
    if not len(held_back) or not len(training):
        return facts
    queries, titles = held_back["query"].to_list(), held_back["title"].to_list()
    predictions: dict[str, np.ndarray] = {}
    if labels is not None:
        predictions["teacher"] = held_back.select(LEVEL_COLUMNS).to_numpy().astype(np.float64)
    if encoder is not None:
        from prectr.relevance.encoder_session import RelevanceEncoder

        predictions["student"] = RelevanceEncoder(encoder).score(queries, titles)[0]
    lexical = LexicalBaseline(tables.items()["title"].to_list()).fit(
        training["query"].to_list(), training["title"].to_list(), training["grade"].to_numpy().astype(np.int64)
    )
    predictions["lexical"] = lexical.probabilities(queries, titles)
    for name, probabilities in predictions.items():
        facts[name] = level_figures(held_back["query"], grades, probabilities)
    return facts


def level_figures(queries: pl.Series, grades: np.ndarray, probabilities: np.ndarray) -> dict[str, float | None]:
    """Compute the figures of one model, rounded to four decimals.

    Args:
        queries: [n].
        grades: int [n], 0..3.
        probabilities: [n, 4], rows sum to one.
    """
    expected = probabilities @ np.arange(4)
    area = auc(grades >= 2, expected)
    figures = {
        "kappa": quadratic_kappa(grades, np.rint(expected).astype(np.int64)),
        "macro_f1": macro_f1(grades, probabilities.argmax(axis=1), GRADES),
        "auc": None if np.isnan(area) else area,
        "ndcg_10": mean_ndcg(queries, grades, expected, 10),
        "rmse": float(np.sqrt(np.mean((expected - grades) ** 2))),
    }
    return {name: None if value is None else round(value, 4) for name, value in figures.items()}


def mean_ndcg(queries: pl.Series, grades: np.ndarray, scores: np.ndarray, depth: int) -> float | None:
    """Mean NDCG@depth over the queries with a positive grade and at least two pairs; None without such a query."""
    query, _ = group_codes(queries.to_numpy())
    kept = (np.bincount(query) > 1)[query]
    value = ndcg(query[kept], 2.0 ** grades[kept] - 1.0, scores[kept], depth)
    return None if np.isnan(value) else value

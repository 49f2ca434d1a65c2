"""Judged pairs and their split by query: the same for teacher, student, calibration and every measurement.

Held-back queries must not be trained on, neither with their judgments nor with a teacher's labels of their pairs.
"""

from collections.abc import Iterable
from typing import Literal

import polars as pl

from prectr.core.errors import UsageError
from prectr.core.text import hash_fraction, normalise_query
from prectr.data.tables import Tables

Split = Literal["train", "validation", "held-back"]

TRAIN_BELOW = 0.7
"""Hash fractions below it are training queries."""
VALIDATION_BELOW = 0.8
"""Hash fractions from `TRAIN_BELOW` up to it are validation queries; the others are held back."""


def split_of(query: str) -> Split:
    """The split of a query: 70 % train, 10 % validation, 20 % held-back, by a hash of its normal form."""
    fraction = hash_fraction(normalise_query(query), "judged-split")
    return "train" if fraction < TRAIN_BELOW else "validation" if fraction < VALIDATION_BELOW else "held-back"


def split_frame(queries: Iterable[str]) -> pl.DataFrame:
    """Split of each distinct query: columns query (unchanged), split; sorted by query."""
    distinct = sorted(set(queries))
    return pl.DataFrame(
        {"query": distinct, "split": [split_of(query) for query in distinct]},
        schema={"query": pl.String, "split": pl.String},
    )


def read_judged(tables: Tables, required: bool = False) -> pl.DataFrame:
    """Judged pairs with their titles and split, without pairs of unknown items.

    The tables may hold no judgments unless they are `required`: a teacher that needs no training can label, and a
    student can learn from its labels.

    Returns:
        columns query (normalised), item_id, title, grade int8 0..3, split; sorted by query, item_id.

    Raises:
        UsageError: judgments are required, and no known item is judged.
    """
    pairs = tables.judgments().join(tables.items().select("item_id", "title"), on="item_id", how="inner")
    if required and pairs.is_empty():
        raise UsageError(
            f"{tables.path / 'judgments.parquet'}: no judged pair of a known item. This stage needs judgments: query, "
            "item_id and grade 0..3."
        )
    return (
        pairs.join(split_frame(pairs["query"]), on="query", how="left")
        .select("query", "item_id", "title", "grade", "split")
        .sort("query", "item_id")
    )

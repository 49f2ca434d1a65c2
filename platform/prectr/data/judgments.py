"""The one split of judged queries, used by teacher, student, calibration and every measurement.

Held-back queries are never trained on, neither through their judgments nor through a teacher's labels of their pairs.
"""

from collections.abc import Iterable
from typing import Literal

import polars as pl

from prectr.core.errors import UsageError
from prectr.core.text import hash_fraction, normalise_query
from prectr.data.tables import Tables

Split = Literal["train", "validation", "held-back"]

TRAIN_BELOW = 0.7
VALIDATION_BELOW = 0.8


def split_of(query: str) -> Split:
    """The split of a query: 70 % train, 10 % validation, 20 % held-back, by a hash of its normal form."""
    fraction = hash_fraction(normalise_query(query), "judged-split")
    return "train" if fraction < TRAIN_BELOW else "validation" if fraction < VALIDATION_BELOW else "held-back"


def split_frame(queries: Iterable[str]) -> pl.DataFrame:
    """Columns query (as given), split; one row per distinct query."""
    distinct = sorted(set(queries))
    return pl.DataFrame(
        {"query": distinct, "split": [split_of(query) for query in distinct]},
        schema={"query": pl.String, "split": pl.String},
    )


def read_judged(tables: Tables, required: bool = False) -> pl.DataFrame:
    """Judged pairs with their titles and split.

    Pairs of unknown items are left out. No judgments at all are allowed unless `required`: a teacher of the user's own
    can label, and a student learn from it, without any.

    Returns:
        columns query (normalised), item_id, title, grade int8 0..3, split; sorted by query, item_id.

    Raises:
        UsageError: the tables hold no judgments, but they are required.
    """
    pairs = tables.judgments().join(tables.items().select("item_id", "title"), on="item_id", how="inner")
    if required and pairs.is_empty():
        raise UsageError(
            f"{tables.path / 'judgments.parquet'}: no judged pair of a known item; judgments (query, item_id, grade "
            "0..3) are needed for this stage."
        )
    return (
        pairs.join(split_frame(pairs["query"]), on="query", how="left")
        .select("query", "item_id", "title", "grade", "split")
        .sort("query", "item_id")
    )

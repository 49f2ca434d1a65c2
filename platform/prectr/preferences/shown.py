"""Shown rows of one file as mining and sampling see them: with category, price, pair, relevance and examination.

Both stages read through here, because a user's own part can only be taken out of a query's sum exactly if both compute
a row's contribution in the same way.
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl

from prectr.errors import PrectrError
from prectr.preferences.aggregates import as_of
from prectr.preferences.fit import PreferenceModel
from prectr.relevance.pairs import read_pairs
from prectr.schema import LEVEL_COLUMNS
from prectr.tables import Tables, read_day_file

IMPRESSION_COLUMNS = (
    "request_id",
    "user_id",
    "ts",
    "query",
    "item_id",
    "position",
    "clicked",
    "purchased",
    "policy",
    "price",
)


@dataclass(frozen=True)
class ShownReader:
    """Reads files of impressions and joins what is known of item and pair."""

    catalogue: pl.DataFrame
    pairs: pl.DataFrame

    @classmethod
    def open(cls, tables: Path, relevance: Path) -> "ShownReader":
        """Load the small sides of the joins: the catalogue and the scored pairs."""
        items = Tables(tables).items()
        pairs = read_pairs(relevance, ["query", "item_id", "expected", *LEVEL_COLUMNS])
        return cls(
            items.select("item_id", "category", "brand", pl.col("price").cast(pl.Float64).alias("list_price")),
            pairs.with_columns(
                pl.concat_list(LEVEL_COLUMNS).list.arg_max().cast(pl.Int32).alias("level"),
                pl.col("expected").cast(pl.Float64),
            ).drop(LEVEL_COLUMNS),
        )

    def read(self, file: Path, day: date) -> pl.DataFrame:
        """The rows of one file with date, file, category, brand, price, log_price, pair, expected (0..1) and level.

        `price` is the price at exposure where the log has it, else the catalogue's; null where neither knows it.

        Raises:
            PrectrError: a row's pair was not scored.
        """
        rows = read_day_file(file, IMPRESSION_COLUMNS).with_columns(
            pl.lit(day).alias("date"),
            pl.lit(file.name).alias("file"),
            pl.col("policy").cast(pl.String),
            pl.col("purchased").cast(pl.Boolean),
            pl.col("price").cast(pl.Float64),
        )
        joined = rows.join(self.catalogue, on="item_id", how="left", maintain_order="left").join(
            self.pairs, on=["query", "item_id"], how="left", maintain_order="left"
        )
        unscored = joined["pair"].null_count()
        if unscored:
            raise PrectrError(
                f"{file}: {unscored:,} of {joined.height:,} rows are pairs that the relevance artifact does not hold; "
                "it was made from other tables. Run `prectr score-relevance` on these, then this stage again."
            )
        priced = joined.with_columns(pl.coalesce("price", "list_price").alias("price")).drop("list_price")
        return priced.with_columns(pl.col("price").clip(lower_bound=0.01).log().alias("log_price"))


def with_examination(rows: pl.DataFrame, model: PreferenceModel) -> pl.DataFrame:
    """Add `exam`, the probability that the row's position was looked at."""
    return rows.with_columns(pl.Series("exam", model.examination(rows["position"].to_numpy())))


def with_shifts(rows: pl.DataFrame, centres: pl.DataFrame | None) -> pl.DataFrame:
    """Add `user_relevance` (corrected for the query's tolerance) and `query_relevance` (for the user's).

    Only tolerances as of the start of the row's day are used, so a correction never knows the row's own future.

    Args:
        rows: shown rows.
        centres: (kind, key, date, shift), how far users and queries lie from their priors; None: no correction.
    """
    if centres is None:
        return rows.with_columns(
            pl.col("expected").alias("user_relevance"), pl.col("expected").alias("query_relevance")
        )
    expected = rows["expected"].to_numpy()
    shifted = {}
    for kind, column, target in (("query", "query", "user_relevance"), ("user", "user_id", "query_relevance")):
        known = centres.filter(pl.col("kind") == kind).select("key", "date", pl.concat_list("shift").alias("sums"))
        shifted[target] = expected - as_of(rows, known, column, 1)[:, 0]
    return rows.with_columns(**{name: pl.Series(values) for name, values in shifted.items()})


def categories_shown(rows: pl.DataFrame) -> pl.DataFrame:
    """query -> the category most often shown for it (ties: first by name). Holds no label."""
    counts = rows.group_by("query", "category").len()
    ranked = counts.sort(["query", "len", "category"], descending=[False, True, False])
    return ranked.unique("query", keep="first", maintain_order=True).select("query", "category")

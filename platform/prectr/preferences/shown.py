"""Shown rows of a part of the log with coded keys, and their reader; mining and `build-samples` both use it.

A user's share can be subtracted from a query's sum exactly only if both stages compute a row's contribution in the same
way. Log-prices are computed here for the same reason, offline and online.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from prectr.contracts.schema import EXPLORE_POLICY, IMPRESSIONS
from prectr.core.coding import Coded, code_column, find_codes
from prectr.core.errors import PrectrError
from prectr.core.text import normalise_queries
from prectr.data.parts import Part, Slice
from prectr.data.tables import Tables, read_parquet
from prectr.preferences.pair_index import PairIndex
from prectr.preferences.tolerance import bounded_position

NEVER_NULL = tuple(name for name in IMPRESSIONS.required_names)
OPTIONAL = {"purchased": pl.Boolean, "policy": pl.String, "price": pl.Float64}
LEAST_PRICE = 0.01
"""Floor of prices, so that their logarithm exists."""


@dataclass(frozen=True)
class Catalogue:
    """Items in the order of `PairIndex.items`. A last, additional place stands for items that the index lacks."""

    category: np.ndarray
    """[I + 1] code of the category."""
    categories: pl.Series
    brand: pl.Series
    """[I + 1] null if unknown."""
    price: pl.Series
    """[I + 1] null if unknown."""
    title: np.ndarray
    """[I + 1] hash of the title, which the encoder read."""

    @classmethod
    def of(cls, items: pl.DataFrame, order: pl.Series) -> "Catalogue":
        """Arrange the columns of `items` in the order of the item ids in `order`."""
        arranged = pl.concat([order.alias("item_id"), pl.Series("item_id", [None], pl.String)]).to_frame()
        arranged = arranged.join(
            items.select(
                "item_id", "category", "brand", pl.col("price").cast(pl.Float64), pl.col("title").hash(seed=0)
            ),
            on="item_id",
            how="left",
            maintain_order="left",
        )
        category = code_column(arranged["category"].fill_null(""))
        title = arranged["title"].fill_null(0).to_numpy()
        return cls(category.codes, category.keys, arranged["brand"], arranged["price"], title)


@dataclass(frozen=True)
class ShownRows:
    """n shown rows of one day with coded keys. Arrays are [n]."""

    frame: pl.DataFrame
    """The columns that the caller named, as read."""
    user: Coded
    query: Coded
    """Normalised queries."""
    item: Coded
    item_place: np.ndarray
    """Place of each row's item in the catalogue."""
    place: np.ndarray
    """Place of each row's pair in the index."""
    clicked: np.ndarray
    position: np.ndarray
    """Positions from `bounded_position`."""

    def __len__(self) -> int:
        return len(self.clicked)

    @cached_property
    def request(self) -> Coded:
        """Coded request ids, if the column request_id was read; coded on first use."""
        return code_column(self.frame["request_id"])


@dataclass(frozen=True)
class ShownReader:
    """Reads parts of the log and looks up each row's item and pair."""

    index: PairIndex
    catalogue: Catalogue

    @classmethod
    def open(cls, tables: Tables, relevance: Path) -> "ShownReader":
        """Load the catalogue and the scored pairs, which rows are joined with."""
        return cls.of(tables.items(), PairIndex.open(relevance))

    @classmethod
    def of(cls, items: pl.DataFrame, index: PairIndex) -> "ShownReader":
        """Arrange the catalogue in the order of the index."""
        return cls(index, Catalogue.of(items, index.items))

    def read(self, part: Part, columns: Sequence[str]) -> ShownRows:
        """Read a part.

        Args:
            part: the rows to read.
            columns: columns of the log besides the keys, position and click.

        Raises:
            PrectrError: a file cannot be read, a key is null, a row does not belong to the day, or a pair was not
                scored.
        """
        names = list(dict.fromkeys(["user_id", "query", "item_id", "position", "clicked", *columns]))
        frames = [_read_slice(piece, names, part.day) for piece in part.slices]
        return self.code(pl.concat(frames), str(part.slices[0].file) if part.slices else "")

    def read_candidates(self, part: Part, columns: Sequence[str]) -> ShownRows:
        """Read a part of the unexposed candidates, with position 1 and no click; they must not be counted as shown.

        Raises:
            PrectrError: as `read`.
        """
        names = list(dict.fromkeys(["user_id", "query", "item_id", *columns]))
        frames = [_read_slice(piece, names, part.day) for piece in part.slices]
        unseen = pl.concat(frames).with_columns(position=pl.lit(1, pl.Int32), clicked=pl.lit(False))
        return self.code(unseen, str(part.slices[0].file) if part.slices else "")

    def code(self, frame: pl.DataFrame, source: str) -> ShownRows:
        """Code the keys of rows in memory; error messages name their `source`."""
        user, typed, item = (code_column(frame[name]) for name in ("user_id", "query", "item_id"))
        normal = normalise_queries(typed.keys)
        query = typed.mapped(typed.keys.replace_strict(normal, return_dtype=pl.String)) if len(typed) else typed
        place = self.index.find(query, item)
        unscored = int((place < 0).sum())
        if unscored:
            raise PrectrError(
                f"{source}: {unscored:,} of {len(place):,} rows are pairs that the relevance artifact does not hold, "
                "because it was made from other tables. Run `prectr score-relevance` on these tables, then this stage "
                "again."
            )
        return ShownRows(
            frame=frame,
            user=user,
            query=query,
            item=item,
            item_place=find_codes(item.keys, self.index.items)[item.codes],
            place=place,
            clicked=frame["clicked"].to_numpy(),
            position=bounded_position(frame["position"].to_numpy()),
        )

    def price(self, rows: ShownRows) -> pl.Series:
        """Price of each row at exposure if the log has it, otherwise the catalogue's; null if neither has one; [n]."""
        listed = self.catalogue.price.gather(rows.item_place)
        if "price" not in rows.frame.columns:
            return listed
        return rows.frame.select(pl.coalesce("price", listed.alias("listed"))).to_series()


def floored_prices(prices: pl.Series) -> pl.Series:
    """Raise prices below LEAST_PRICE to it; float64, null stays null."""
    return prices.cast(pl.Float64).clip(lower_bound=LEAST_PRICE)


def log_prices(prices: pl.Series) -> np.ndarray:
    """Compute the natural logarithm of floored prices, [n]; NaN where the price is null."""
    return np.asarray(floored_prices(prices).log().fill_null(np.nan).to_numpy())


def log_price(price: float | None) -> float:
    """Compute the same as `log_prices` for one price, to the last bit."""
    return math.nan if price is None else math.log(max(float(price), LEAST_PRICE))


def explored(rows: pl.DataFrame) -> np.ndarray:
    """Whether each row belongs to the randomised slice, bool [n]; needs the column `policy`."""
    return np.asarray((rows["policy"] == EXPLORE_POLICY).fill_null(False).to_numpy())


def _read_slice(piece: Slice, columns: list[str], day: date) -> pl.DataFrame:
    """Read a slice of a file; refuse null keys and moments of another day."""
    frame = read_parquet(piece.file, columns, OPTIONAL, start=piece.start, rows=piece.rows)
    nulls = frame.select(pl.col(name).null_count() for name in columns if name in NEVER_NULL).row(0, named=True)
    for name, count in nulls.items():
        if count:
            raise PrectrError(
                f"{piece.file}: column '{name}' is null in {count:,} of {frame.height:,} rows. "
                "Run `prectr validate` on the log: it sets such rows aside with their reason."
            )
    if "ts" in columns and frame.height:
        first, last = frame.select(pl.min("ts").alias("first"), pl.max("ts").alias("last")).row(0)
        if first.date() != day or last.date() != day:
            raise PrectrError(
                f"{piece.file}: column 'ts' runs from {first} to {last}, but the file lies in date={day}. "
                "Run `prectr validate` on the log: it sets such rows aside with their reason."
            )
    return frame


def categories_shown(shown: pl.DataFrame) -> pl.DataFrame:
    """Find the category most often shown for each query (ties: the first by name), without using clicks.

    Args:
        shown: query, category and the number of rows shown, in any number of parts.
    """
    counts = shown.group_by("query", "category").agg(pl.col("shown").sum())
    ranked = counts.sort(["query", "shown", "category"], descending=[False, True, False])
    return ranked.unique("query", keep="first", maintain_order=True).select("query", "category")

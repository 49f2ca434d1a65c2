"""Shown rows of a part of the log, coded: what mining and sampling both start from.

Both stages read through here, because a user's own part can only be taken out of a query's sum exactly if both compute
a row's contribution in the same way.
"""

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
"""Prices below are taken for it, because their logarithm is used."""


@dataclass(frozen=True)
class Catalogue:
    """Items in the order of `PairIndex.items`, and one place more, the last, for an item that is not in it."""

    category: np.ndarray
    """[I + 1] code of the category."""
    categories: pl.Series
    brand: pl.Series
    """[I + 1] null where there is none."""
    price: pl.Series
    """[I + 1] null where there is none."""

    @classmethod
    def of(cls, items: pl.DataFrame, order: pl.Series) -> "Catalogue":
        """Lay the columns of `items` out in the order of the item ids in `order`."""
        arranged = pl.concat([order.alias("item_id"), pl.Series("item_id", [None], pl.String)]).to_frame()
        arranged = arranged.join(
            items.select("item_id", "category", "brand", pl.col("price").cast(pl.Float64)),
            on="item_id",
            how="left",
            maintain_order="left",
        )
        category = code_column(arranged["category"].fill_null(""))
        return cls(category.codes, category.keys, arranged["brand"], arranged["price"])


@dataclass(frozen=True)
class ShownRows:
    """n shown rows of one day with their keys coded. Arrays are [n]."""

    frame: pl.DataFrame
    """The columns that were asked for, as read."""
    user: Coded
    query: Coded
    """Normalised."""
    item: Coded
    item_place: np.ndarray
    """Place of the row's item in the catalogue."""
    place: np.ndarray
    """Place of the row's pair in the index."""
    clicked: np.ndarray
    position: np.ndarray
    """Bounded (`bounded_position`)."""

    def __len__(self) -> int:
        return len(self.clicked)

    @cached_property
    def request(self) -> Coded:
        """The requests, where request_id was read; coded when first asked for."""
        return code_column(self.frame["request_id"])


@dataclass(frozen=True)
class ShownReader:
    """Reads parts of the log and looks up what is known of item and pair."""

    index: PairIndex
    catalogue: Catalogue

    @classmethod
    def open(cls, tables: Tables, relevance: Path) -> "ShownReader":
        """Load the small sides of the joins: the catalogue and the scored pairs."""
        return cls.of(tables.items(), PairIndex.open(relevance))

    @classmethod
    def of(cls, items: pl.DataFrame, index: PairIndex) -> "ShownReader":
        """Arrange the catalogue for the index."""
        return cls(index, Catalogue.of(items, index.items))

    def read(self, part: Part, columns: Sequence[str]) -> ShownRows:
        """Read a part.

        Args:
            part: the rows to read.
            columns: columns of the log beside the keys, position and click.

        Raises:
            PrectrError: a file cannot be read, a key is null, a row does not belong to the day, or a pair was not
                scored.
        """
        wanted = list(dict.fromkeys(["user_id", "query", "item_id", "position", "clicked", *columns]))
        frames = [_read_slice(piece, wanted, part.day) for piece in part.slices]
        return self.code(pl.concat(frames), str(part.slices[0].file) if part.slices else "")

    def read_candidates(self, part: Part, columns: Sequence[str]) -> ShownRows:
        """Read a part of the unexposed candidates, as if shown first and not clicked: nothing may count them.

        Raises:
            PrectrError: as `read`.
        """
        wanted = list(dict.fromkeys(["user_id", "query", "item_id", *columns]))
        frames = [_read_slice(piece, wanted, part.day) for piece in part.slices]
        unseen = pl.concat(frames).with_columns(position=pl.lit(1, pl.Int32), clicked=pl.lit(False))
        return self.code(unseen, str(part.slices[0].file) if part.slices else "")

    def code(self, frame: pl.DataFrame, source: str) -> ShownRows:
        """Code rows that are in memory; `source` names them in messages."""
        user, typed, item = (code_column(frame[name]) for name in ("user_id", "query", "item_id"))
        normal = normalise_queries(typed.keys)
        query = typed.mapped(typed.keys.replace_strict(normal, return_dtype=pl.String)) if len(typed) else typed
        place = self.index.find(query, item)
        unscored = int((place < 0).sum())
        if unscored:
            raise PrectrError(
                f"{source}: {unscored:,} of {len(place):,} rows are pairs that the relevance artifact does not hold; "
                "it was made from other tables. Run `prectr score-relevance` on these, then this stage again."
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
        """[n] the price at exposure where the log has it, else the catalogue's; null where neither knows it."""
        listed = self.catalogue.price.gather(rows.item_place)
        if "price" not in rows.frame.columns:
            return listed
        return rows.frame.select(pl.coalesce("price", listed.alias("listed"))).to_series()


def log_prices(prices: pl.Series) -> np.ndarray:
    """[n] NaN where null."""
    bounded = prices.cast(pl.Float64).clip(lower_bound=LEAST_PRICE)
    return np.asarray(bounded.log().fill_null(np.nan).to_numpy())


def explored(rows: pl.DataFrame) -> np.ndarray:
    """[n] whether the row belongs to the randomised slice; needs the column `policy`."""
    return np.asarray((rows["policy"] == EXPLORE_POLICY).fill_null(False).to_numpy())


def _read_slice(piece: Slice, columns: list[str], day: date) -> pl.DataFrame:
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
    """query -> the category most often shown for it (ties: first by name). Holds no label.

    Args:
        shown: query, category and how many rows were shown, in any number of parts.
    """
    counts = shown.group_by("query", "category").agg(pl.col("shown").sum())
    ranked = counts.sort(["query", "shown", "category"], descending=[False, True, False])
    return ranked.unique("query", keep="first", maintain_order=True).select("query", "category")

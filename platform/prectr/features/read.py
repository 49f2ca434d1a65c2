"""The first half of `build-samples`: shown rows of a part, with all that depends on their day and pair looked up.

What is left for the second half, after the shuffle by user, needs the user's whole history.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from prectr.core.coding import code_column
from prectr.core.parquet import read_table
from prectr.data.parts import Part
from prectr.preferences.mined import Preferences
from prectr.preferences.passes import day_centres, fetch_reader, known_centres
from prectr.preferences.shown import ShownReader, ShownRows, log_prices
from prectr.preferences.sums import COUNT_NAMES

COLUMNS = ("request_id", "ts", "purchased", "policy", "price")


@dataclass(frozen=True)
class Reading:
    """What all tasks share."""

    preferences: Preferences
    reader: Any
    """The `ShownReader`, or its reference in the object store."""


def read_rows(part: Part, shared: Reading, exposed: bool = True) -> pl.DataFrame:
    """Rows of a part of the impressions, or of the unexposed candidates.

    Returns:
        exposed, request_id, user_id, ts, query (normalised), item_id, position, clicked, purchased, policy, price,
        log_price and log_list_price (at exposure and in the catalogue; NaN where unknown), date, pair, level, category,
        brand; the cells of the log-likelihood table as the user's and the query's tolerance see the row; item_* and
        pair_*: exam and clicks of item and pair before the day.
    """
    reader, mined = fetch_reader(shared.reader), shared.preferences
    rows = (reader.read if exposed else reader.read_candidates)(part, COLUMNS)
    index, catalogue = reader.index, reader.catalogue
    centres = known_centres(rows, day_centres(mined.path, part.day), mined.config.alternate)
    expected = index.expected[rows.place]
    price = reader.price(rows)
    cells = (
        mined.table.cells(rows.clicked, rows.position, expected - shift)
        for shift in (centres.query[rows.query.codes], centres.user[rows.user.codes])
    )
    user_cell, query_cell = cells
    return rows.frame.select(
        pl.lit(exposed).alias("exposed"),
        "request_id",
        "user_id",
        "ts",
        rows.query.decoded().alias("query"),
        "item_id",
        "position",
        "clicked",
        "purchased",
        "policy",
        price.alias("price"),
        pl.Series("log_price", log_prices(price)),
        pl.Series("log_list_price", log_prices(catalogue.price.gather(rows.item_place))),
        pl.lit(part.day).alias("date"),
        pl.Series("pair", index.pair[rows.place]),
        pl.Series("level", index.level[rows.place]),
        catalogue.categories.gather(catalogue.category[rows.item_place]).alias("category"),
        catalogue.brand.gather(rows.item_place).alias("brand"),
        pl.Series("user_cell", user_cell),
        pl.Series("query_cell", query_cell),
        *_known_of_items(rows, mined, part),
        *_known_of_pairs(rows, reader, mined, part),
    )


def _known_of_items(rows: ShownRows, mined: Preferences, part: Part) -> list[pl.Series]:
    """Exam and clicks of each row's item before the day."""
    _, sums = mined.before("item", _on_day(rows.item.keys.alias("item_id").to_frame(), part))
    return [
        pl.Series(f"item_{name}", sums[rows.item.codes, COUNT_NAMES.index(name)]) for name in ("examined", "clicks")
    ]


def _known_of_pairs(rows: ShownRows, reader: ShownReader, mined: Preferences, part: Part) -> list[pl.Series]:
    """Exam and clicks of each row's pair before the day. A join by place is quicker than one by text."""
    index = reader.index

    def places(known: pl.DataFrame) -> pl.DataFrame:
        place = index.find(code_column(known["query"]), code_column(known["item_id"]))
        return known.select(pl.Series("place", place, pl.Int64), "examined", "clicks")

    known = places(read_table(mined.path / "before" / "pair", [part.day]))
    wanted = pl.Series("place", rows.place).to_frame()
    absent = wanted.join(known, on="place", how="anti")["place"].unique().to_numpy()
    if len(absent):  # only unexposed candidates have pairs that the day does not show
        query, item = np.divmod(index.key[absent], len(index.items))
        pairs = pl.DataFrame([index.queries.gather(query).alias("query"), index.items.gather(item).alias("item_id")])
        known = pl.concat([known, places(mined.folded_before("pair", _on_day(pairs, part)))])
    found = wanted.join(known, on="place", how="left", maintain_order="left")
    return [found[name].fill_null(0.0).alias(f"pair_{name}") for name in ("examined", "clicks")]


def _on_day(keys: pl.DataFrame, part: Part) -> pl.DataFrame:
    return keys.with_columns(pl.lit(part.day).alias("date"))

"""Adapter of Diginetica (CIKM Cup 2016, track 2): requests with shown items in order, clicks and products.

Files are separated by `;`. Queries and titles are published as ids of words and stay ids: "123 456". The day of a
request is known, but not its time of day: `timeframe` counts milliseconds from the first query of the session. So `ts`
keeps the order inside a session only.
"""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from prectr.contracts.schema import IMPRESSIONS, ITEMS
from prectr.data.importers.config import ImportConfig
from prectr.data.reading.files import Layout
from prectr.data.reading.reader import Reader
from prectr.data.source import Source, Tally, find_file

LAYOUT = Layout(separator=";", nulls=("", "NA"))
FILES = ("train-queries.csv", "train-clicks.csv", "products.csv", "product-categories.csv")
QUERY_COLUMNS = (
    "queryId",
    "sessionId",
    "userId",
    "timeframe",
    "eventdate",
    "searchstring.tokens",
    "items",
    "is.test",
)


def open_diginetica(path: Path, config: ImportConfig) -> Source:
    """Open the four files that are read in the directory `path`.

    Raises:
        UsageError: a file is missing.
    """
    files = {name: find_file(path, name) for name in FILES}
    tally, sessions_as_users = Tally(), config.diginetica.sessions_as_users

    def items(reader: Reader) -> Iterator[pl.DataFrame]:
        listed = reader.whole(files["product-categories.csv"], ["itemId", "categoryId"], LAYOUT)
        categories = listed.select("itemId", "categoryId").unique("itemId", keep="first", maintain_order=True)
        tally.leave_out("further categories of a product that has one", listed.height - categories.height)
        # It is commonly read as log2(price + 1); 0 then means that the price is unknown.
        price = 2.0 ** pl.col("pricelog2").cast(pl.Float64, strict=False) - 1.0
        for frame in reader.chunks(files["products.csv"], ["itemId", "pricelog2", "product.name.tokens"], LAYOUT):
            yield reader.conform(
                frame.join(categories, on="itemId", how="left", maintain_order="left"),
                ITEMS,
                {
                    "item_id": "itemId",
                    "title": _words("product.name.tokens"),
                    "category": "categoryId",
                    "price": pl.when(price > 0).then(price),
                },
            )

    def impressions(reader: Reader) -> Iterator[pl.DataFrame]:
        clicks = reader.whole(files["train-clicks.csv"], ["queryId", "itemId"], LAYOUT)
        clicks = clicks.select("queryId", "itemId", clicked=pl.lit(True)).unique()
        for frame in reader.chunks(files["train-queries.csv"], QUERY_COLUMNS, LAYOUT):
            requests = _searches(frame, tally, sessions_as_users)
            shown = requests.with_columns(pl.col("items").str.split(",").alias("itemId"))
            shown = shown.with_columns(pl.int_ranges(1, pl.col("itemId").list.len() + 1).alias("position")).explode(
                "itemId", "position"
            )
            shown_clicks = clicks.join(requests.select("queryId").unique(), on="queryId", how="semi")
            lost_clicks = shown_clicks.join(shown, on=["queryId", "itemId"], how="anti").height
            tally.leave_out("clicks on an item that the request did not show", lost_clicks)
            rows = shown.join(shown_clicks, on=["queryId", "itemId"], how="left", maintain_order="left")
            yield reader.conform(rows, IMPRESSIONS, _impression_columns(sessions_as_users))

    return Source(
        "diginetica",
        files,
        {"items": items, "impressions": impressions},
        tally,
        lacks=(
            "judgments, brands and candidates",
            "the time of day: ts is the day plus the time since the session's first query",
            "purchases by request: they are published by session",
        ),
        assumed=("a session without a user is a user of its own, session-ID",) if sessions_as_users else (),
    )


def _searches(frame: pl.DataFrame, tally: Tally, sessions_as_users: bool) -> pl.DataFrame:
    """Requests that can be used; the others are counted by reason."""
    is_test = pl.col("is.test").str.to_lowercase().is_in(["true", "1"]).fill_null(False)
    requests = tally.keep(frame, ~is_test, "test requests: their clicks are not published")
    requests = tally.keep(
        requests, pl.col("searchstring.tokens").is_not_null(), "requests without a query (category pages)"
    )
    if sessions_as_users:
        return requests
    return tally.keep(
        requests, pl.col("userId").is_not_null(), "requests without a user (importing.diginetica.sessions_as_users)"
    )


def _impression_columns(sessions_as_users: bool) -> dict[str, str | pl.Expr]:
    day = pl.col("eventdate").str.to_datetime("%Y-%m-%d", time_unit="us", time_zone="UTC", strict=False)
    user: str | pl.Expr = "userId"
    if sessions_as_users:
        user = pl.coalesce("userId", pl.lit("session-") + pl.col("sessionId"))
    return {
        "request_id": "queryId",
        "user_id": user,
        "ts": day + pl.duration(milliseconds=pl.col("timeframe").cast(pl.Int64, strict=False)),
        "query": _words("searchstring.tokens"),
        "item_id": "itemId",
        "position": "position",
        "clicked": pl.col("clicked").fill_null(False),
    }


def _words(column: str) -> pl.Expr:
    return pl.col(column).str.replace_all(",", " ", literal=True)

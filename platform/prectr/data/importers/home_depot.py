"""Adapter of Home Depot Product Search Relevance (Kaggle): judged query-product pairs. It holds no log.

Relevance is the average of a few ratings 1 (irrelevant), 2 (partly) or 3 (perfect); `CUTS` converts it to grades.
"""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from prectr.contracts.schema import ITEMS, JUDGMENTS
from prectr.data.importers.config import ImportConfig
from prectr.data.reading.files import Layout
from prectr.data.reading.reader import Reader
from prectr.data.source import Source, Tally, find_file, find_optional

CUTS = {3: 2.66, 2: 2.0, 1: 1.5}
"""Grade -> least average; lower averages are grade 0. 2.66 rather than 2.67, because 8/3 is published as 2.67."""
PAIRS = Layout(encoding="latin-1")
BRAND = "MFG Brand Name"


def open_home_depot(path: Path, config: ImportConfig) -> Source:
    """Open `train.csv` and, if they exist, `test.csv` (more products) and `attributes.csv` (brands) in `path`.

    Raises:
        UsageError: `train.csv` is missing.
    """
    train = find_file(path, "train.csv")
    test, attributes = find_optional(path, "test.csv"), find_optional(path, "attributes.csv")
    files = {file.name: file for file in (train, test, attributes) if file is not None}

    def items(reader: Reader) -> Iterator[pl.DataFrame]:
        titles = pl.concat(
            [reader.whole(file, ["product_uid", "product_title"], PAIRS) for file in (train, test) if file is not None]
        ).unique("product_uid", keep="first", maintain_order=True)
        columns: dict[str, str | pl.Expr] = {"item_id": "product_uid", "title": "product_title"}
        if attributes is not None:
            titles = titles.join(_brands(reader, attributes), on="product_uid", how="left", maintain_order="left")
            columns["brand"] = "value"
        yield reader.conform(titles, ITEMS, columns)

    def judgments(reader: Reader) -> Iterator[pl.DataFrame]:
        average = pl.col("relevance").cast(pl.Float64, strict=False)
        grade = pl.sum_horizontal((average >= lowest).cast(pl.Int32) for lowest in CUTS.values())
        wrong = pl.col("relevance").is_not_null() & ~average.is_between(1, 3).fill_null(False)
        for frame in reader.chunks(train, ["product_uid", "search_term", "relevance"], PAIRS):
            yield reader.conform(
                frame,
                JUDGMENTS,
                {
                    "query": "search_term",
                    "item_id": "product_uid",
                    "grade": pl.when(average.is_not_null()).then(grade),
                    "source": pl.lit("home-depot"),
                },
                faults=[(wrong, "relevance is not a number from 1 to 3")],
            )

    lacks = ("impressions, users and candidates: judgments only", "category and price")
    return Source(
        "home-depot",
        files,
        {"items": items, "judgments": judgments},
        Tally(),
        grades={**{f"relevance >= {lowest}": grade for grade, lowest in CUTS.items()}, "below": 0},
        lacks=lacks if attributes is not None else (*lacks, "brand (no attributes.csv)"),
    )


def _brands(reader: Reader, attributes: Path) -> pl.DataFrame:
    """First brand of each product: columns product_uid, value."""
    brands = [
        frame.filter(pl.col("name") == BRAND).select("product_uid", "value")
        for frame in reader.chunks(attributes, ["product_uid", "name", "value"], Layout())
    ]
    return pl.concat(brands).unique("product_uid", keep="first", maintain_order=True)

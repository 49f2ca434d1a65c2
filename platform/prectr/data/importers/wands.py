"""Adapter of WANDS (Wayfair): three tab-separated files of products, queries and judgments. It holds no log."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from prectr.contracts.schema import ITEMS, JUDGMENTS
from prectr.data.importers.config import ImportConfig
from prectr.data.reading.files import Layout
from prectr.data.reading.reader import Reader
from prectr.data.reading.values import grade_of
from prectr.data.source import Source, Tally, find_file

GRADES = {"Exact": 3, "Partial": 2, "Irrelevant": 0}
"""WANDS label -> grade. Partial: the right product with a detail that differs (2). No label means accessory (1)."""
LAYOUT = Layout(separator="\t")
FIGURES = ("rating_count", "average_rating", "review_count")


def open_wands(path: Path, config: ImportConfig) -> Source:
    """Open `product.csv`, `query.csv` and `label.csv` in the directory `path`.

    Raises:
        UsageError: a file is missing.
    """
    files = {name: find_file(path, name) for name in ("product.csv", "query.csv", "label.csv")}

    def items(reader: Reader) -> Iterator[pl.DataFrame]:
        columns = ["product_id", "product_name", "product_class", "category hierarchy"]
        for frame in reader.chunks(files["product.csv"], columns, LAYOUT, optional=FIGURES):
            figures = {name: pl.col(name).cast(pl.Float64, strict=False) for name in FIGURES if name in frame.columns}
            yield reader.conform(
                frame,
                ITEMS,
                {
                    "item_id": "product_id",
                    "title": "product_name",
                    "category": pl.col("category hierarchy").str.replace_all(" / ", " > ", literal=True),
                    "product_class": "product_class",
                    **figures,
                },
            )

    def judgments(reader: Reader) -> Iterator[pl.DataFrame]:
        queries = reader.whole(files["query.csv"], ["query_id", "query"], LAYOUT).select("query_id", "query")
        grade, unknown = grade_of(GRADES, "label")
        for frame in reader.chunks(files["label.csv"], ["query_id", "product_id", "label"], LAYOUT):
            yield reader.conform(
                frame.join(queries, on="query_id", how="left", maintain_order="left"),
                JUDGMENTS,
                {"query": "query", "item_id": "product_id", "grade": grade, "source": pl.lit("wands")},
                faults=[unknown],
            )

    return Source(
        "wands",
        files,
        {"items": items, "judgments": judgments},
        Tally(),
        grades=GRADES,
        lacks=("impressions, users and candidates: judgments only", "brand and price"),
    )

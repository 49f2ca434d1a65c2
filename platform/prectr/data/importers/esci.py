"""Adapter of Amazon's Shopping Queries (ESCI): judged examples and products in two files or joined in one.

The files are Parquet or CSV. Product ids are unique inside a locale only, so one locale is imported.
"""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from prectr.contracts.schema import ITEMS, JUDGMENTS
from prectr.data.importers.config import ImportConfig
from prectr.data.reading.reader import Reader
from prectr.data.reading.values import grade_of
from prectr.data.source import Source, Tally, find_file

GRADES = {"E": 3, "S": 2, "C": 1, "I": 0, "Exact": 3, "Substitute": 2, "Complement": 1, "Irrelevant": 0}
"""ESCI label, in any case -> grade."""
STEM = "shopping_queries_dataset"


def open_esci(path: Path, config: ImportConfig) -> Source:
    """Open the two published files in the directory `path`, or the file `path` of examples joined with products.

    Raises:
        UsageError: a file is missing.
    """
    joined = path.is_file()
    if joined:
        examples = products = path
    else:
        examples, products = (
            find_file(path, f"{STEM}_{kind}.parquet", f"{STEM}_{kind}.csv") for kind in ("examples", "products")
        )
    locale, tally = config.esci.locale, Tally()
    of_locale = (pl.col("product_locale") == locale).fill_null(False)

    def items(reader: Reader) -> Iterator[pl.DataFrame]:
        columns = ["product_id", "product_locale", "product_title", "product_brand", "product_color"]
        known_ids = pl.Series("product_id", [], dtype=pl.String)
        for frame in reader.chunks(products, columns):
            rows = tally.keep(frame, of_locale, f"products of other locales than {locale}")
            if joined:  # a product is repeated for each of its judgments
                rows = rows.filter(~pl.col("product_id").is_in(known_ids.implode())).unique(
                    "product_id", keep="first", maintain_order=True
                )
                known_ids = pl.concat([known_ids, rows["product_id"]])
            yield reader.conform(
                rows,
                ITEMS,
                {
                    "item_id": "product_id",
                    "title": "product_title",
                    "brand": "product_brand",
                    "color": "product_color",
                },
            )

    def judgments(reader: Reader) -> Iterator[pl.DataFrame]:
        grade, unknown = grade_of(GRADES, "esci_label")
        columns = ["query", "product_id", "product_locale", "esci_label"]
        for frame in reader.chunks(examples, columns, optional=["split"]):
            rows = tally.keep(frame, of_locale, f"judgments of other locales than {locale}")
            yield reader.conform(
                rows,
                JUDGMENTS,
                {"query": "query", "item_id": "product_id", "grade": grade, "source": pl.lit("esci")},
                faults=[unknown],
                keep=["split"] if "split" in frame.columns else [],
            )

    return Source(
        "esci",
        {"examples": examples, "products": products},
        {"items": items, "judgments": judgments},
        tally,
        grades=GRADES,
        lacks=("impressions, users and candidates: judgments only", "category and price"),
    )

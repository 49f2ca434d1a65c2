"""Adapter of KuaiSearch (Kuaishou): items, users, judged pairs and the ranking log, as JSON lines.

The ranking log has neither positions nor times: the rows of a request start with the clicked ones, and `time_index`
counts an unpublished unit. Impressions are imported only if `importing.kuaisearch` assumes both. `recall.jsonl` lists
the shown items of the same requests and no others, so it is not read.
"""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from prectr.contracts.schema import IMPRESSIONS, ITEMS, JUDGMENTS, USERS
from prectr.core.errors import PrectrError
from prectr.data.importers.config import ImportConfig, KuaiSearchConfig
from prectr.data.reading.bad_rows import FILE, ROW
from prectr.data.reading.files import Layout
from prectr.data.reading.reader import Reader
from prectr.data.reading.values import grade_of
from prectr.data.source import Rows, Source, Tally, find_file, find_optional

LAYOUT = Layout(format="jsonl")
GRADES = {"0": 0, "1": 1, "2": 2, "3": 3}
CATEGORIES = ("category_level1_name", "category_level2_name", "category_level3_name")
NO_BRAND = "无品牌"
RANK_COLUMNS = (
    "user_id",
    "session_id",
    "time_index",
    "query",
    "target_item_id",
    "is_clicked",
    "is_purchased",
    "target_item_price",
)


def open_kuaisearch(path: Path, config: ImportConfig) -> Source:
    """Open `items.jsonl` (or `corpus.jsonl`) in `path` and, if they exist, `users`, `relevance` and `rank.jsonl`.

    Raises:
        UsageError: the file of items is missing.
    """
    catalogue = find_file(path, "items.jsonl", "corpus.jsonl")
    users, relevance, rank = (find_optional(path, f"{name}.jsonl") for name in ("users", "relevance", "rank"))
    assume = config.kuaisearch
    tables: dict[str, Rows] = {"items": lambda reader: _items(reader, catalogue, relevance)}
    lacks = ["item prices"]
    assumed: list[str] = []
    if users is not None:
        tables["users"] = lambda reader: _users(reader, users)
    if relevance is not None:
        tables["judgments"] = lambda reader: _judgments(reader, relevance)
        assumed.append("judged products have no item id: they are items relevance-ROW, alike texts being one product")
    if rank is not None and assume.position is not None:
        tables["impressions"] = lambda reader: _impressions(reader, rank, assume)
        assumed += [
            f"every shown item is at position {assume.position}",
            f"time_index counts {assume.time_unit} from 1970",
        ]
    else:
        lacks.append(
            "positions and times, so no impressions are made; importing.kuaisearch.position and .time_unit assume them"
        )
    files = {file.name: file for file in (catalogue, users, relevance, rank) if file is not None}
    return Source(
        "kuaisearch",
        files,
        tables,
        Tally(),
        grades=GRADES if relevance is not None else {},
        lacks=tuple(lacks),
        assumed=tuple(assumed),
    )


def _items(reader: Reader, catalogue: Path, relevance: Path | None) -> Iterator[pl.DataFrame]:
    optional = ["brand_name", "seller_name", *CATEGORIES]
    for frame in reader.chunks(catalogue, ["item_id", "item_title"], LAYOUT, optional=optional):
        columns: dict[str, str | pl.Expr] = {"item_id": "item_id", "title": "item_title"}
        if "brand_name" in frame.columns:
            columns["brand"] = _brand("brand_name")
        levels = [name for name in CATEGORIES if name in frame.columns]
        if levels:
            path = pl.concat_str(
                [pl.col(name).replace("", None) for name in levels], separator=" > ", ignore_nulls=True
            )
            columns["category"] = path.replace("", None)
        yield reader.conform(frame, ITEMS, columns, keep=["seller_name"] if "seller_name" in frame.columns else [])
    if relevance is not None:
        judged = _judged_products(reader, relevance).unique("product", keep="first", maintain_order=True)
        yield reader.conform(judged, ITEMS, {"item_id": "product", "title": "item_title", "brand": _brand("brand")})


def _users(reader: Reader, users: Path) -> Iterator[pl.DataFrame]:
    others = reader.types_of([(users, LAYOUT)], without=["user_id"])
    for frame in reader.chunks(users, ["user_id"], LAYOUT, others=others):
        profile = [name for name in frame.columns if name not in ("user_id", FILE, ROW)]
        yield reader.conform(frame, USERS, {"user_id": "user_id"}, keep=profile)


def _judgments(reader: Reader, relevance: Path) -> Iterator[pl.DataFrame]:
    judged = _judged_products(reader, relevance)
    grade, unknown = grade_of(GRADES, "label")
    yield reader.conform(
        judged,
        JUDGMENTS,
        {"query": "query", "item_id": "product", "grade": grade, "source": pl.lit("kuaisearch")},
        faults=[unknown],
    )


def _judged_products(reader: Reader, relevance: Path) -> pl.DataFrame:
    """Judged products: columns query, item_title, brand, label, product.

    `product` is relevance-ROW of the first row with the same product text.
    """
    texts = ("brand", "brand_name", "seller_name", "attr_value", "attribute")
    raw = reader.whole(relevance, ["query", "item_title"], LAYOUT, optional=[*texts, "label", "score"])
    label = next((name for name in ("label", "score") if name in raw.columns), None)
    if label is None:
        raise PrectrError(f"{relevance}: column 'label' or 'score' is missing. The file has: {', '.join(raw.columns)}.")
    brand = next((pl.col(name) for name in ("brand", "brand_name") if name in raw.columns), pl.lit(None, pl.String))
    product = ["item_title", *(name for name in texts if name in raw.columns)]
    return raw.select(
        "query",
        "item_title",
        brand.alias("brand"),
        pl.col(label).alias("label"),
        (pl.lit("relevance-") + (pl.col(ROW) - 1).first().over(product).cast(pl.String)).alias("product"),
        FILE,
        ROW,
    )


def _impressions(reader: Reader, rank: Path, assume: KuaiSearchConfig) -> Iterator[pl.DataFrame]:
    assert assume.position is not None and assume.time_unit is not None
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400}[assume.time_unit]
    moment = pl.from_epoch(pl.col("time_index").cast(pl.Int64) * seconds, "s")
    for frame in reader.chunks(rank, RANK_COLUMNS, LAYOUT):
        yield reader.conform(
            frame,
            IMPRESSIONS,
            {
                "request_id": pl.format("{}-{}", "session_id", "time_index"),
                "user_id": "user_id",
                "ts": moment.dt.cast_time_unit("us").dt.replace_time_zone("UTC"),
                "query": "query",
                "item_id": "target_item_id",
                "position": pl.lit(assume.position),
                "clicked": "is_clicked",
                "purchased": "is_purchased",
                "price": "target_item_price",
            },
        )


def _brand(column: str) -> pl.Expr:
    return pl.col(column).replace({NO_BRAND: None, "": None})

"""A marketplace on a real catalogue: simulated users search its items, queries and judgments.  [ours]

Users, policy, examination, clicks and purchases are simulated as in the invented marketplace. Missing data is not
invented: an item without a price has no price taste and no markdown; an item without a brand or category appeals to no
taste for it; a query whose judged items have no category is in no favourite category. Quality and popularity, which no
catalogue states but the click model needs, are drawn as for invented items.
"""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from prectr.contracts.schema import GRADES
from prectr.core import progress
from prectr.core.errors import PrectrError, UsageError
from prectr.core.parquet import to_arrow
from prectr.core.text import normalise_query
from prectr.data.marketplace import constants, randomness
from prectr.data.marketplace.catalogue import Floats, Ints, Listings, draw_popularity, rank_within
from prectr.data.marketplace.config import SCALES, MarketplaceConfig
from prectr.data.marketplace.log import make_world
from prectr.data.marketplace.queries import Searches, query_tolerance, typed_forms, zipf_weights
from prectr.data.marketplace.real_relevance import Judged, fit_curve, retrieve_real
from prectr.data.marketplace.retrieval import Pools
from prectr.data.marketplace.text_match import TextMatch
from prectr.data.marketplace.users import make_users
from prectr.data.marketplace.worlds import Marketplace
from prectr.data.tables import Tables


def check_sizes(config: MarketplaceConfig) -> None:
    """Refuse sizes that the catalogue determines.

    Raises:
        UsageError: `items` or `queries` is set.
    """
    for name in ("items", "queries"):
        if getattr(config, name) is not None:
            raise UsageError(
                f"simulate.{name} is set to {getattr(config, name)}, but --catalogue brings its own {name}: "
                "leave it out. The scale sets users, requests and days."
            )


def read_marketplace(config: MarketplaceConfig, path: Path) -> Marketplace:
    """Make the marketplace on the validated tables at `path`.

    Raises:
        UsageError: `path` holds no validated tables, or `config` sets a size that they determine.
        PrectrError: no item is judged, no judged pair is relevant, or there are fewer items than a pool needs.
    """
    check_sizes(config)
    tables = Tables(path)
    items = _read_items(tables)
    judgments, pairs = _read_judgments(tables, items)
    texts = pairs["query"].unique().sort()
    judged = _judged_pairs(pairs, texts, items["item_id"])
    sizes = config.sizes._replace(items=items.height, queries=len(texts))

    brand, brands = _codes(items["brand"])
    leaf, leaves = _codes(items["category"])
    top, tops = _codes(items["category"].str.split(">").list.first().str.strip_chars())
    match = TextMatch(texts.to_list(), items["title"].to_list())
    listings = _listings(config.seed, items, brand, leaf, leaves, match.title_lengths)
    searches = _searches(config, texts.to_list(), match.query_information, _query_tops(judged, top, len(texts)))
    users = make_users(config.seed, sizes.users, SCALES[config.scale].days, config.placebo, max(tops, 1))
    curve = fit_curve(randomness.stream(config.seed, randomness.JUDGMENTS), match, judged)
    pools = retrieve_real(match, curve, judged, listings, len(texts))
    _describe(items, judged, pools)
    return Marketplace(
        world=make_world(config.seed, listings, searches, users, pools, brands, leaves),
        sizes=sizes,
        items=to_arrow(items),
        queries_truth=_queries_truth(searches, judged, pools),
        judgments=lambda _: to_arrow(judgments),
        parameters={"relevance_of_unjudged_pairs": curve.as_dict()},
    )


def _read_items(tables: Tables) -> pl.DataFrame:
    """The items with category, brand and price; null where the source states none."""
    if not tables.has("items"):
        raise PrectrError(f"{tables.path / 'items.parquet'}: is missing; a catalogue needs items (item_id, title).")
    items = tables.items().with_columns(pl.col("category").replace("", None))
    if items.height < constants.POOL:
        raise PrectrError(
            f"{tables.path / 'items.parquet'}: holds {items.height} items; a query's pool of candidates needs at least "
            f"{constants.POOL}. Give a larger catalogue."
        )
    return items


def _read_judgments(tables: Tables, items: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Judgments of known items, unchanged; and their pairs: query (normalised, not empty), item_id, grade."""
    file = tables.path / "judgments.parquet"
    if not tables.has("judgments"):
        raise PrectrError(
            f"{file}: is missing; --catalogue takes its queries and relevance from judgments (query, item_id, "
            "grade 0..3). `prectr import wands`, `esci` and `home-depot` bring some."
        )
    rows = pl.read_parquet(file)
    is_known = pl.col("item_id").is_in(items["item_id"].implode())
    judgments = rows.filter(is_known)
    if judgments.height < rows.height:
        progress.say(
            f"  judgments: {rows.height - judgments.height:,} of {rows.height:,} left out: item_id not in items"
        )
    pairs = tables.judgments().filter(is_known)
    blank = pairs.filter(pl.col("query") == "").height
    if blank:
        progress.say(f"  judgments: {blank:,} left out: their query is empty")
        pairs = pairs.filter(pl.col("query") != "")
    if not pairs.height:
        raise PrectrError(
            f"{file}: no judgment of an item in {tables.path / 'items.parquet'} with a query, so there are no queries."
        )
    if pairs["grade"].max() == 0:
        raise PrectrError(
            f"{file}: all {pairs.height:,} judgments have grade 0, so nothing would be clicked for its relevance. "
            "Check how the source's labels were mapped to grades."
        )
    return judgments, pairs


def _judged_pairs(pairs: pl.DataFrame, texts: pl.Series, item_ids: pl.Series) -> Judged:
    def numbered(name: str, values: pl.Series) -> pl.DataFrame:
        return pl.DataFrame({name: values}).with_row_index(f"{name}_row")

    rows = (
        pairs.join(numbered("query", texts), on="query")
        .join(numbered("item_id", item_ids), on="item_id")
        .sort("query_row", "item_id_row")
    )
    return Judged(
        query=rows["query_row"].to_numpy().astype(np.int64),
        item=rows["item_id_row"].to_numpy().astype(np.int64),
        grade=rows["grade"].to_numpy().astype(np.int8),
        items=len(item_ids),
    )


def _codes(values: pl.Series) -> tuple[Ints, int]:
    """Number of each value among the sorted distinct values, -1 for null; and how many distinct values there are."""
    distinct = values.drop_nulls().unique().sort()
    numbers = values.replace_strict(
        distinct, pl.int_range(len(distinct), eager=True), default=-1, return_dtype=pl.Int32
    )
    return numbers.to_numpy().astype(np.int32), len(distinct)


def _listings(seed: int, items: pl.DataFrame, brand: Ints, leaf: Ints, leaves: int, title_lengths: Floats) -> Listings:
    rng = randomness.stream(seed, randomness.CATALOGUE)
    quality = rng.standard_normal(items.height)
    price = items["price"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    return Listings(
        ids=pa.array(items["item_id"].to_list(), pa.string()),
        brand=brand,
        leaf=leaf,
        price=price,
        # Prices rank within their category; items without a category form one group.
        price_rank=rank_within(price, np.where(leaf < 0, leaves, leaf).astype(np.int32)),
        may_discount=~np.isnan(price),
        quality=quality,
        popularity=draw_popularity(rng, quality),
        completeness=rank_within(title_lengths + 1e-6 * quality, np.zeros(items.height, np.int32)),
    )


def _query_tops(judged: Judged, top: Ints, queries: int) -> Ints:
    """Top category of each query: the most frequent one of its best judged items; -1 if they have none."""
    best_tops = (
        pl.DataFrame({"query": judged.query, "grade": judged.grade, "top": top[judged.item]})
        .filter((pl.col("top") >= 0) & (pl.col("grade") == pl.col("grade").max().over("query")))
        .group_by("query", "top")
        .len()
        .sort(["query", "len", "top"], descending=[False, True, False])
        .unique("query", keep="first", maintain_order=True)
    )
    tops = np.full(queries, -1, np.int32)
    tops[best_tops["query"].to_numpy()] = best_tops["top"].to_numpy()
    return tops


def _searches(config: MarketplaceConfig, texts: list[str], information: Floats, top: Ints) -> Searches:
    """Queries of the catalogue. Specificity is the rank of the sum of the words' inverse document frequencies."""
    rng = randomness.stream(config.seed, randomness.QUERIES)
    specificity = rank_within(information, np.zeros(len(texts), np.int32))
    weight = zipf_weights(rng, specificity)
    popularity = weight / weight.sum()
    unexplained = constants.TOLERANCE_QUERY_SD * rng.standard_normal(len(texts))
    return Searches(
        texts=texts,
        # In some scripts another case is another word (dotless i); such a form would be another query.
        typed=pa.array(
            [form if normalise_query(form) == text else text for text in texts for form in typed_forms(text)],
            pa.string(),
        ),
        top=top,
        specificity=specificity,
        popularity=popularity,
        tolerance=np.zeros(len(texts)) if config.placebo else query_tolerance(specificity, popularity, unexplained),
    )


def _queries_truth(queries: Searches, judged: Judged, pools: Pools) -> pa.Table:
    """`truth/queries.parquet` of a real catalogue."""
    return pa.table(
        {
            "query": pa.array(queries.texts, pa.string()),
            "d_q": queries.tolerance,
            "specificity": queries.specificity,
            "popularity": queries.popularity,
            "judged_items": np.bincount(judged.query, minlength=len(queries)),
            "pool_items": (pools.item >= 0).sum(axis=1),
        }
    )


def _describe(items: pl.DataFrame, judged: Judged, pools: Pools) -> None:
    """Print the sizes of the world and how much of the data is missing."""
    lacking = ", ".join(f"{items[name].null_count():,} without {name}" for name in ("category", "brand", "price"))
    progress.say(f"  catalogue: {items.height:,} items ({lacking})")
    counts = np.bincount(judged.grade, minlength=len(GRADES))
    of_grades = ", ".join(f"grade {grade}: {count:,}" for grade, count in enumerate(counts))
    progress.say(f"  judgments: {len(judged.grade):,} pairs of {len(pools.item):,} queries ({of_grades})")
    for grade in np.flatnonzero(counts == 0):
        progress.say(f"    grade {grade} was never given" + (", so no unjudged pair gets it" if grade else ""))
    present = pools.item >= 0
    assert pools.judged is not None
    progress.say(
        f"  pools: {present.sum():,} pairs, {pools.judged.sum():,} with a judgment, the others' relevance is lexical; "
        f"{(present.sum(axis=1) < constants.SHOWN).sum():,} queries have fewer than {constants.SHOWN} candidates"
    )

"""The invented catalogue: product types, brands and models as integer tables, and items with titles like sellers write.

The attributes of an item are those that its title states (a model's name may stand for its brand), so the text decides
the grade. Attributes are integer codes; -1 means not stated. It must not know queries or users.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from prectr.data.marketplace import randomness
from prectr.data.marketplace.vocabulary import (
    COLOURS,
    CONDITIONS,
    FOR_PARTS,
    MODELS_PER_SERIES,
    NOISE,
    NUMBERS,
    PRODUCT_TYPES,
)

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Texts = npt.NDArray[np.object_]

ACCESSORY, SIBLING, SAME = 1, 2, 3  # relation of an item's type to the type of the query; 0: none


@dataclass(frozen=True)
class Taxonomy:
    """The vocabulary as arrays. T types, B brands, M models; codes index these."""

    type_names: list[list[str]]
    type_leaf: Ints  # (T,)
    type_top: Ints  # (T,)
    type_main: Ints  # (T,) the type itself; for an accessory the main type that it fits
    leaf_names: list[str]
    brand_names: list[str]
    type_brands: list[Ints]  # codes of the brands of each type, the most frequent first
    type_specs: list[list[str]]
    model_names: list[str]  # without the brand: "galaxy s10"
    model_series: Ints  # (M,)
    model_named: npt.NDArray[np.bool_]  # (M,) false: the name is a number only, which needs its brand
    brand_models: dict[tuple[int, int], Ints]  # (main type, brand) -> models
    relation: npt.NDArray[np.int8]  # (T of the query, T of the item)


@cache
def taxonomy() -> Taxonomy:
    """Build the tables from the vocabulary. They are the same for every seed."""
    leaf_names = list(dict.fromkeys(product.leaf for product in PRODUCT_TYPES))
    top_names = list(dict.fromkeys(leaf.split(" > ")[0] for leaf in leaf_names))
    type_names = [product.names.split(",") for product in PRODUCT_TYPES]
    by_name = {names[0]: code for code, names in enumerate(type_names)}
    main = [by_name[product.fits] if product.fits else code for code, product in enumerate(PRODUCT_TYPES)]
    brands = [PRODUCT_TYPES[code].brands.split() for code in main]
    brand_names = list(dict.fromkeys(name for names in brands for name in names))
    brand_code = {name: code for code, name in enumerate(brand_names)}

    model_names: list[str] = []
    model_series: list[int] = []
    model_named: list[bool] = []
    brand_models: dict[tuple[int, int], list[int]] = {}
    series_count = 0
    for code, product in enumerate(PRODUCT_TYPES):
        for index, series in enumerate(product.series.split()):
            brand = brand_code[brands[code][index % len(brands[code])]]
            for step in range(MODELS_PER_SERIES):
                number = NUMBERS[(13 * code + MODELS_PER_SERIES * index + step) % len(NUMBERS)]
                brand_models.setdefault((code, brand), []).append(len(model_names))
                model_names.append(number if series == "-" else f"{series} {number}")
                model_series.append(series_count)
                model_named.append(series != "-")
            series_count += 1

    leaf = np.array([leaf_names.index(product.leaf) for product in PRODUCT_TYPES], np.int32)
    main_array = np.array(main, np.int32)
    is_main = main_array == np.arange(len(main))
    relation = np.zeros((len(main), len(main)), np.int8)
    relation[(leaf[:, None] == leaf[None, :]) & is_main[:, None] & is_main[None, :]] = SIBLING
    fits = main_array[None, :] == np.arange(len(main))[:, None]
    relation[fits | fits.T] = ACCESSORY
    np.fill_diagonal(relation, SAME)
    return Taxonomy(
        type_names=type_names,
        type_leaf=leaf,
        type_top=np.array([top_names.index(leaf_names[code].split(" > ")[0]) for code in leaf], np.int32),
        type_main=main_array,
        leaf_names=leaf_names,
        brand_names=brand_names,
        type_brands=[np.array([brand_code[name] for name in names], np.int32) for names in brands],
        type_specs=[product.specs.split() for product in PRODUCT_TYPES],
        model_names=model_names,
        model_series=np.array(model_series, np.int32),
        model_named=np.array(model_named),
        brand_models={key: np.array(models, np.int32) for key, models in brand_models.items()},
        relation=relation,
    )


@dataclass(frozen=True)
class Listings:
    """Columns of N items, invented or real, that the log needs; row i is item `ids[i]`."""

    ids: pa.Array
    brand: Ints  # -1: unknown
    leaf: Ints  # code of the whole category; -1: unknown
    price: Floats  # NaN: the seller states none
    price_rank: Floats  # rank 0..1 of the price among similar items; NaN if the price is
    may_discount: npt.NDArray[np.bool_]  # whether the price can be marked down
    quality: Floats  # standard normal
    popularity: Floats  # 0..1, rank
    completeness: Floats  # rank 0..1 by how much the title states and how intact the item is

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Catalogue(Listings):
    """N invented items. Attributes are codes of the vocabulary; prices rank within the type."""

    titles: pa.Array
    type: Ints
    model: Ints
    colour: Ints
    spec: Ints  # index into the values of the item's type
    condition: Ints


def make_catalogue(seed: int, size: int) -> Catalogue:
    """Draw `size` items."""
    tables = taxonomy()
    rng = randomness.stream(seed, randomness.CATALOGUE)
    types = len(tables.type_names)
    popularity_of_type = rng.permutation((np.arange(types) + 3.0) ** -0.5)
    kind = randomness.draw(rng, popularity_of_type, size).astype(np.int32)
    accessory = tables.type_main[kind] != kind
    brand, model = _draw_brands_and_models(rng, kind)
    colour = np.where(rng.random(size) < 0.6, rng.integers(0, len(COLOURS), size), -1).astype(np.int32)
    spec_counts = np.array([len(specs) for specs in tables.type_specs], np.int32)[kind]
    spec = np.where(
        (spec_counts > 0) & (rng.random(size) < 0.7), (rng.random(size) * spec_counts).astype(np.int32), -1
    ).astype(np.int32)
    condition = rng.choice(len(CONDITIONS), size, p=[0.20, 0.30, 0.42, 0.08]).astype(np.int32)
    condition_stated = (condition == FOR_PARTS) | (rng.random(size) < 0.65)

    quality = rng.standard_normal(size)
    medians = np.array([product.price for product in PRODUCT_TYPES])
    factors = np.array([1.3, 1.1, 0.9, 0.4])
    price = np.round(medians[kind] * factors[condition] * np.exp(0.35 * rng.standard_normal(size)), 2)
    price[rng.random(size) < 0.04] = np.nan
    stated = ((brand >= 0).astype(float) + (model >= 0) + (colour >= 0) + (spec >= 0) + condition_stated) / 5
    wholeness = np.array([1.0, 0.8, 0.6, 0.0])[condition]
    return Catalogue(
        ids=numbered_ids("i", size),
        titles=_titles(rng, kind, accessory, brand, model, colour, spec, np.where(condition_stated, condition, -1)),
        type=kind,
        brand=brand,
        leaf=tables.type_leaf[kind],
        model=model,
        colour=colour,
        spec=spec,
        condition=condition,
        price=price,
        price_rank=rank_within(price, kind),
        may_discount=np.ones(size, bool),
        quality=quality,
        popularity=draw_popularity(rng, quality),
        completeness=rank_within(stated + wholeness + 1e-6 * quality, np.zeros(size, np.int32)),
    )


def items_table(seed: int, items: Catalogue) -> pa.Table:
    """The canonical `items.parquet`. Some brands are null, because sellers leave them out."""
    tables = taxonomy()
    rng = randomness.stream(seed, randomness.CATALOGUE, 1)
    accessory = tables.type_main[items.type] != items.type
    brand_given = (items.brand >= 0) & (rng.random(len(items)) < np.where(accessory, 0.4, 0.9))
    brands = pa.array(tables.brand_names).take(pa.array(np.where(brand_given, items.brand, 0)))
    return pa.table(
        {
            "item_id": items.ids,
            "title": items.titles,
            "category": pa.array(tables.leaf_names).take(pa.array(tables.type_leaf[items.type])),
            "brand": pc.if_else(pa.array(brand_given), brands, pa.scalar(None, pa.string())),
            "price": pa.array(items.price, from_pandas=True),
        }
    )


def compose(parts: Texts, keys: Floats) -> pa.Array:
    """Join the words of each row by blanks in ascending order of `keys`, without those that are None.

    Both arguments are (rows, parts).
    """
    order = np.argsort(keys, axis=1, kind="stable")
    sorted_parts = np.take_along_axis(parts, order, axis=1)
    columns = [pa.array(sorted_parts[:, index], pa.string()) for index in range(parts.shape[1])]
    return pc.binary_join_element_wise(*columns, " ", null_handling="skip")


def lookup(words: list[str], codes: npt.NDArray[np.integer]) -> Texts:
    """Word of each code; None for code -1."""
    return np.array([*words, None], dtype=object)[codes]


def synonym_codes(rng: np.random.Generator, groups: list[list[str]], codes: Ints) -> tuple[list[str], Ints]:
    """Draw a synonym for each code; the first of a group is three times as likely. Returns all words and the codes."""
    counts = np.array([len(group) for group in groups], np.int32)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int32)
    choice = (rng.random(len(codes)) * (counts[codes] + 2)).astype(np.int32) - 2
    picked = np.where(codes >= 0, starts[codes] + np.maximum(choice, 0), -1).astype(np.int32)
    return [word for group in groups for word in group], picked


def spec_texts(kind: Ints, spec: Ints) -> Texts:
    """Word of each (type, spec) code; None for spec -1."""
    specs = taxonomy().type_specs
    starts = np.concatenate([[0], np.cumsum([len(values) for values in specs])[:-1]]).astype(np.int32)
    return lookup([value for values in specs for value in values], np.where(spec >= 0, starts[kind] + spec, -1))


def _draw_brands_and_models(rng: np.random.Generator, kind: Ints) -> tuple[Ints, Ints]:
    tables = taxonomy()
    brand = np.full(len(kind), -1, np.int32)
    model = np.full(len(kind), -1, np.int32)
    for code, brands in enumerate(tables.type_brands):
        rows = np.flatnonzero(kind == code)
        rows = rows[rng.random(len(rows)) < 0.92]
        if len(brands) == 0 or len(rows) == 0:
            continue
        brand[rows] = brands[randomness.draw(rng, (np.arange(len(brands)) + 1.0) ** -0.7, len(rows))]
        for name in brands:
            models = tables.brand_models.get((int(tables.type_main[code]), int(name)))
            with_model = rows[(brand[rows] == name) & (rng.random(len(rows)) < 0.85)]
            if models is not None:
                weights = (np.arange(len(models)) + 1.0) ** -0.5
                model[with_model] = models[randomness.draw(rng, weights, len(with_model))]
    return brand, model


def _titles(
    rng: np.random.Generator,
    kind: Ints,
    accessory: npt.NDArray[np.bool_],
    brand: Ints,
    model: Ints,
    colour: Ints,
    spec: Ints,
    condition: Ints,
) -> pa.Array:
    tables = taxonomy()
    size = len(kind)
    named = (model >= 0) & tables.model_named[model]
    brand_shown = (brand >= 0) & ~(named & (rng.random(size) < 0.25))
    # Only main products drop the word of their type: an accessory without it would read like the main product.
    type_shown = ~((model >= 0) & ~accessory & (rng.random(size) < 0.35))
    connector = accessory & (brand >= 0) & (rng.random(size) < 0.7)
    bundled = _bundled_accessory(rng, kind)
    noise = np.where(rng.random((size, 2)) < [0.6, 0.3], rng.integers(0, len(NOISE), (size, 2)), -1)

    type_words, type_codes = synonym_codes(rng, tables.type_names, kind)
    colour_words, colour_codes = synonym_codes(rng, [list(group) for group in COLOURS], colour)
    condition_words, condition_codes = synonym_codes(rng, [list(group) for group in CONDITIONS], condition)
    parts = np.stack(
        [
            lookup(list(NOISE), noise[:, 0]),
            lookup(condition_words, condition_codes),
            lookup(["for"], np.where(connector, 0, -1)),
            lookup(tables.brand_names, np.where(brand_shown, brand, -1)),
            lookup(tables.model_names, model),
            lookup(type_words, np.where(type_shown, type_codes, -1)),
            spec_texts(kind, spec),
            lookup(colour_words, colour_codes),
            lookup(list(NOISE), noise[:, 1]),
            lookup(["with"], np.where(bundled >= 0, 0, -1)),
            lookup([names[0] for names in tables.type_names], bundled),
        ],
        axis=1,
    )
    keys = np.array([0.0, 0.8, 3.0, 3.0, 3.0, 4.0, 5.0, 6.0, 7.0, 9.0, 9.1]) + np.concatenate(
        [rng.normal(0, 0.9, (size, 9)), np.zeros((size, 2))], axis=1
    )
    keys[:, 4] = keys[:, 3] + 1e-3  # the model follows its brand
    keys[:, 2] = keys[:, 3] - 1e-3  # "for" precedes it
    keys[:, 5] = np.where(connector, keys[:, 3] - 2e-3, keys[:, 5])  # "battery for nokia 3310"
    titles = compose(parts, keys)
    return pc.if_else(pa.array(rng.random(size) < 0.35), pc.utf8_title(titles), titles)


def _bundled_accessory(rng: np.random.Generator, kind: Ints) -> Ints:
    """Type of an accessory that comes with some main products ("iphone 11 with charger"); -1 for the others."""
    tables = taxonomy()
    bundled = np.full(len(kind), -1, np.int32)
    for code in range(len(tables.type_names)):
        fitting = np.flatnonzero((tables.type_main == code) & (np.arange(len(tables.type_main)) != code))
        rows = np.flatnonzero(kind == code)
        rows = rows[rng.random(len(rows)) < 0.06]
        if len(fitting):
            bundled[rows] = rng.choice(fitting, len(rows))
    return bundled


def draw_popularity(rng: np.random.Generator, quality: Floats) -> Floats:
    """Popularity ranks in (0, 1): quality plus noise."""
    return rank_within(0.8 * quality + 0.6 * rng.standard_normal(len(quality)), np.zeros(len(quality), np.int32))


def rank_within(values: Floats, group: Ints) -> Floats:
    """Rank of each value within its group, scaled to (0, 1); NaN stays NaN."""
    order = np.lexsort((values, group))  # NaN sorts last within its group
    valid = ~np.isnan(values)
    counts = np.bincount(group[valid], minlength=int(group.max()) + 1)
    totals = np.bincount(group, minlength=int(group.max()) + 1)
    starts = np.concatenate([[0], np.cumsum(totals)[:-1]])
    rank = np.empty(len(values))
    rank[order] = np.arange(len(values)) - starts[group[order]]
    return np.where(valid, (rank + 0.5) / np.maximum(counts[group], 1), np.nan)


def numbered_ids(prefix: str, size: int) -> pa.Array:
    """Ids: `prefix` and a row number of seven digits."""
    numbers = pc.utf8_lpad(pc.cast(pa.array(np.arange(size)), pa.string()), width=7, padding="0")
    return pc.binary_join_element_wise(pa.scalar(prefix), numbers, "")

"""Invented queries: intents from broad ("phone") to exact ("nokia 3310 blue battery"), each with one to three wordings.

The wordings of an intent share its attributes and its tolerance. Case variants are drawn for each request.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from prectr.core.errors import UsageError
from prectr.core.text import normalise_query
from prectr.data.marketplace import constants, randomness
from prectr.data.marketplace.catalogue import (
    Catalogue,
    Floats,
    Ints,
    compose,
    lookup,
    spec_texts,
    synonym_codes,
    taxonomy,
)
from prectr.data.marketplace.vocabulary import COLOURS

# Attributes that an intent states besides the type (brand, model, colour, spec), and the share of such intents.
TEMPLATES = (
    ((0, 0, 0, 0), 0.16),
    ((1, 0, 0, 0), 0.20),
    ((1, 1, 0, 0), 0.24),
    ((0, 0, 1, 0), 0.08),
    ((0, 0, 0, 1), 0.06),
    ((1, 0, 1, 0), 0.07),
    ((1, 0, 0, 1), 0.05),
    ((1, 1, 1, 0), 0.07),
    ((1, 1, 0, 1), 0.05),
    ((1, 1, 1, 1), 0.02),
)
SPECIFICITY = np.array([0.25, 0.35, 0.20, 0.20])  # of brand, model, colour, spec
WORDINGS_KEPT = (1.0, 0.5, 0.3)  # probability that the first, second, third wording exists


@dataclass(frozen=True)
class Searches:
    """Columns of Q distinct normalised queries, invented or real, that the log needs."""

    texts: list[str]
    typed: pa.Array  # (Q * 4,) forms as users type them; row 4 * q + variant
    top: Ints  # top category of the query; -1: unknown
    specificity: Floats  # 0 broad .. 1 exact
    popularity: Floats  # sums to 1
    tolerance: Floats  # d_q

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Queries(Searches):
    """Q invented queries with their intents; attribute codes as in the catalogue, -1: not stated."""

    intent: Ints
    source: Ints  # the item that suggested the intent
    type: Ints
    brand: Ints
    model: Ints
    colour: Ints
    spec: Ints


TYPED_SHARES = np.array([0.78, 0.13, 0.03, 0.06])  # shares of: unchanged, Title Case, UPPER CASE, extra blanks


def typed_forms(text: str) -> tuple[str, str, str, str]:
    """Forms in which users type a query, in the order of `TYPED_SHARES`."""
    return text, text.title(), text.upper(), f" {text}  "


def zipf_weights(rng: np.random.Generator, specificity: Floats) -> Floats:
    """Relative frequency of each query; broad queries tend to be more frequent."""
    rank = np.argsort(np.argsort(specificity + rng.normal(0, 0.8, len(specificity)))).astype(np.float64)
    return np.power(rank + 3.0, -constants.QUERY_ZIPF)


def query_tolerance(specificity: Floats, popularity: Floats, unexplained: Floats) -> Floats:
    """d_q: a part proportional to specificity, centred over requests, plus the `unexplained` part."""
    return constants.TOLERANCE_SPECIFICITY * (specificity - popularity @ specificity) + unexplained


def make_queries(seed: int, size: int, items: Catalogue, placebo: bool) -> Queries:
    """Draw `size` distinct queries, each suggested by an item of the catalogue.

    Raises:
        UsageError: the catalogue is too small for that many queries.
    """
    rng = randomness.stream(seed, randomness.QUERIES)
    intents, source = _draw_intents(rng, size, items)
    specificity = (intents[:, 1:] >= 0) @ SPECIFICITY
    count, wordings = len(intents), len(WORDINGS_KEPT)
    rows = np.repeat(np.arange(count), wordings)
    texts = _word(rng, intents[rows]).to_pylist()
    exists = rng.random(len(rows)) < np.tile(WORDINGS_KEPT, count)
    row_by_text: dict[str, int] = {}  # of two intents with the same wording the first counts
    for row in np.flatnonzero(exists):
        row_by_text.setdefault(normalise_query(texts[row]), int(row))
    if len(row_by_text) < size:
        raise UsageError(
            f"simulate.queries is {size}, but a catalogue of {len(items):,} items gives only {len(row_by_text)} "
            "distinct queries: lower 'queries' or raise 'items'."
        )
    names = list(row_by_text)[:size]
    row_of = np.array([row_by_text[name] for name in names])
    intent = rows[row_of]

    weight = zipf_weights(rng, specificity[intent]) * np.array(WORDINGS_KEPT)[row_of % wordings]
    popularity = weight / weight.sum()
    unexplained = constants.TOLERANCE_QUERY_SD * rng.standard_normal(count)[intent]
    tolerance = np.zeros(size) if placebo else query_tolerance(specificity[intent], popularity, unexplained)
    attributes = intents[intent]
    return Queries(
        texts=names,
        typed=pa.array([form for name in names for form in typed_forms(name)]),
        top=taxonomy().type_top[attributes[:, 0]],
        intent=intent.astype(np.int32),
        source=source[intent],
        type=attributes[:, 0],
        brand=attributes[:, 1],
        model=attributes[:, 2],
        colour=attributes[:, 3],
        spec=attributes[:, 4],
        specificity=specificity[intent],
        popularity=popularity,
        tolerance=tolerance,
    )


def _draw_intents(rng: np.random.Generator, size: int, items: Catalogue) -> tuple[Ints, Ints]:
    """Distinct rows (type, brand, model, colour, spec) in the order of the draws, and the item that suggested each."""
    draws = 12 * size
    source = randomness.draw(rng, items.popularity**2, draws)
    asked = np.array([template for template, _ in TEMPLATES], bool)[
        randomness.draw(rng, np.array([share for _, share in TEMPLATES]), draws)
    ]
    stated = np.stack([column[source] for column in (items.brand, items.model, items.colour, items.spec)], axis=1)
    attributes = np.where(asked, stated, -1)
    attributes[:, 1] = np.where(attributes[:, 0] < 0, -1, attributes[:, 1])
    intents = np.concatenate([items.type[source][:, None], attributes], axis=1).astype(np.int32)
    _, first = np.unique(intents, axis=0, return_index=True)
    first = np.sort(first)
    return intents[first], source[first].astype(np.int32)


def _word(rng: np.random.Generator, intents: npt.NDArray[np.int32]) -> pa.Array:
    tables = taxonomy()
    kind, brand, model, colour, spec = intents.T
    size = len(intents)
    main = tables.type_main[kind] == kind
    named = (model >= 0) & tables.model_named[model]
    brand_shown = (brand >= 0) & ~(named & (rng.random(size) < 0.4))
    type_shown = ~((model >= 0) & main & (rng.random(size) < 0.5))
    type_words, type_codes = synonym_codes(rng, tables.type_names, kind)
    colour_words, colour_codes = synonym_codes(rng, [list(group) for group in COLOURS], colour)
    parts = np.stack(
        [
            lookup(tables.brand_names, np.where(brand_shown, brand, -1)),
            lookup(tables.model_names, model),
            lookup(colour_words, colour_codes),
            spec_texts(kind, spec),
            lookup(type_words, np.where(type_shown, type_codes, -1)),
        ],
        axis=1,
    )
    keys = np.array([0.0, 0.0, 1.0, 1.5, 2.0]) + rng.normal(0, 0.6, (size, 5))
    keys[:, 1] = keys[:, 0] + 1e-3  # the model follows its brand
    return compose(parts, keys)

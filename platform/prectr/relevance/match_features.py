"""Match features of query and title: overlaps of words, characters, brands and measures, weighted by the catalogue.

The student's classifier and the rankers read them. The weights are fitted once, on the catalogue, and stored with the
encoder. A pair's values depend on its two texts and these weights only, so offline and online values are equal.
"""

import re
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from prectr.core.errors import PrectrError, shorten
from prectr.core.text import lower_words

MATCH_FILE = "match.parquet"
"""File of the weights in an encoder artifact, and in the `relevance/` of a bundle."""
MATCH_FEATURES = (
    "match_brand",
    "match_head",
    "match_last",
    "match_measure_conflict",
    "match_measures",
    "match_missing",
    "match_phrase",
    "match_query_digits",
    "match_query_length",
    "match_query_trigrams",
    "match_query_words",
    "match_title_length",
    "match_title_words",
    "match_trigrams",
    "match_weighted_title",
    "match_weighted_trigrams",
    "match_weighted_words",
)
"""The features' names, in alphabetical order."""
FITTED_TITLES = 100_000
"""Titles that weights are fitted on, at most. Of a larger catalogue, evenly spaced ones are taken."""
_CATEGORY_PRIOR = 5.0
"""Titles of average categories that are added to the titles of each word."""
_LEAST_TITLES = 2
_LEAST_UNIT_TITLES = 3
_MEASURE = re.compile(r"(\d+(?:[.,]\d+)?)[\s-]?([^\W\d_]+|[\"″])")
_SIGNS = ('"', "″")
_UNIT_NAMES = {
    '"': "inch",
    "″": "inch",
    "ounce": "oz",
    "pound": "lb",
    "foot": "ft",
    "feet": "ft",
    "gallon": "gal",
    "liter": "l",
    "litre": "l",
    "gram": "g",
    "kilogram": "kg",
    "meter": "m",
    "metre": "m",
    "gigabyte": "gb",
    "terabyte": "tb",
    "watt": "w",
    "volt": "v",
}
"""Other names of units, without plurals."""
_TABLE = {
    "word": pl.String,
    "trigram": pl.UInt32,
    "weight": pl.Float32,
    "focus": pl.Float32,
    "brand": pl.Boolean,
    "unit": pl.Boolean,
}


class MatchTable:
    """The match features of pairs, with weights fitted on a catalogue.

    The weight of a word is its inverse document frequency, ln((1 + N) / (1 + n)) + 1, where n of N titles hold it.
    Character trigrams are weighted likewise. The focus of a word says how much it tells about the category: the
    Kullback-Leibler divergence of the categories of titles that hold the word from those of all titles, in nats [ours].
    A word belongs to a brand if at least half of the titles that hold it are of a brand whose name holds it. It is a
    unit if it follows a number in at least half of the titles that hold it.

    | feature | value |
    |---|---|
    | match_query_words, match_title_words | share of the text's distinct words that the other text holds |
    | match_weighted_words, match_weighted_title | the same, each word counted with its weight |
    | match_missing | largest weight of the query's words that the title lacks, over that of an unknown word |
    | match_head | 1 if the title holds the query's word of most focus (of equal ones, the last) |
    | match_last | 1 if the title holds the query's last word |
    | match_query_digits | share of the query's words with a digit that the title holds; 1 if there is none |
    | match_brand | share of the query's words of brands that the title holds; 1 if there is none |
    | match_measures | share of the query's measures (number and unit) that the title holds; 1 if there is none |
    | match_measure_conflict | 1 if the title states another number with the unit of a measure that it lacks |
    | match_query_trigrams | share of the query's distinct trigrams of bytes that the title holds |
    | match_weighted_trigrams | the same, each trigram counted with its weight |
    | match_trigrams | Jaccard index of the two trigram sets |
    | match_phrase | 1 if the title holds the whole query as a substring |
    | match_query_length, match_title_length | log(1 + distinct words) |

    Texts are compared in lower case, words without English endings of the plural. A text without words has shares of 0.

    Args:
        table: columns word, trigram, weight, focus, brand, unit. Each row describes a word or a trigram; the word ""
            stands for all words and trigrams that have no row.

    >>> items = pl.DataFrame({"title": ["Nokia 3310", "Phone cases"], "category": ["phone", "case"], "brand": None})
    >>> found = MatchTable.fit(items).features(["nokia case"], ["my nokia 3310"])
    >>> float(found[0, MATCH_FEATURES.index("match_query_words")])
    0.5
    """

    def __init__(self, table: pl.DataFrame) -> None:
        self._table = table
        words = table.filter(pl.col("word").is_not_null())
        self._row_of = dict(zip(words["word"].to_list(), range(len(words)), strict=True))
        self._unknown = self._row_of[""]
        self._weight, self._focus, self._is_brand = (
            words[name].to_numpy().astype(np.float64) for name in ("weight", "focus", "brand")
        )
        self._units = frozenset(words.filter("unit")["word"].to_list())
        trigrams = table.filter(pl.col("trigram").is_not_null()).sort("trigram")
        self._trigrams, self._trigram_weight = trigrams["trigram"].to_numpy(), trigrams["weight"].to_numpy()

    @classmethod
    def fit(cls, items: pl.DataFrame) -> "MatchTable":
        """Fit the weights on a catalogue: columns title, category and brand, strings; the last two may be null."""
        if len(items) > FITTED_TITLES:
            items = items[np.linspace(0, len(items) - 1, FITTED_TITLES).astype(np.int64)]
        texts = _Texts.of(items["title"].to_list())
        words = _word_statistics(texts, items)
        grams = (
            texts.trigrams.explode(empty_as_null=False)
            .value_counts(name="titles")
            .rename({texts.trigrams.name: "trigram"})
        )
        known = pl.concat([words, grams.filter(pl.col("titles") >= _LEAST_TITLES)], how="diagonal")
        unknown = pl.DataFrame({"word": "", "titles": 0}, schema_overrides={"titles": pl.UInt32})
        weight = ((1 + len(items)) / (1 + pl.col("titles"))).log() + 1
        return cls(
            pl.concat([unknown, known], how="diagonal")
            .with_columns(pl.col("brand", "unit").fill_null(False), pl.col("focus").fill_null(0.0), weight=weight)
            .select(pl.col(name).cast(kind) for name, kind in _TABLE.items())
            .sort("word", "trigram")
        )

    def save(self, file: Path) -> None:
        """Write the weights as Parquet."""
        self._table.write_parquet(file)

    @classmethod
    def load(cls, file: Path) -> "MatchTable":
        """Read what `save` wrote.

        Raises:
            PrectrError: the file is missing or damaged.
        """
        try:
            return cls(pl.read_parquet(file).select(pl.col(name).cast(kind) for name, kind in _TABLE.items()))
        except (OSError, pl.exceptions.PolarsError, KeyError) as error:
            raise PrectrError(f"{file}: cannot be read ({shorten(error)}); build its encoder again.") from None

    def features(self, queries: Sequence[str], titles: Sequence[str]) -> np.ndarray:
        """Compute the features of n pairs: float32 [n, len(MATCH_FEATURES)]."""
        number_of: dict[str, int] = {}
        query_of, title_of = (
            np.fromiter((number_of.setdefault(text, len(number_of)) for text in side), np.int64, len(side))
            for side in (queries, titles)
        )
        texts = _Texts.of(list(number_of))
        words = self._word_features(texts, query_of, title_of)
        trigrams = self._trigram_features(texts.trigrams, query_of, title_of)
        both = pl.DataFrame({"query": texts.lower[query_of], "title": texts.lower[title_of]})
        phrase = both.select(pl.col("title").str.contains(pl.col("query"), literal=True)).to_series().to_numpy()
        found = {**words, **trigrams, **self._measure_features(texts, query_of, title_of), "match_phrase": phrase}
        columns = [np.asarray(found[name], np.float32) for name in MATCH_FEATURES]
        return np.stack(columns, axis=1) if len(queries) else np.zeros((0, len(MATCH_FEATURES)), np.float32)

    def _word_features(self, texts: "_Texts", query_of: np.ndarray, title_of: np.ndarray) -> dict[str, np.ndarray]:
        words = texts.words.to_list()
        rows = np.array([self._row_of.get(word, self._unknown) for word in words], np.int64)
        digit = np.array([any(map(str.isnumeric, word)) for word in words], np.float64)
        weight = self._weight[rows]
        numbers = {"count": np.ones(len(words)), "weight": weight, "brand": self._is_brand[rows], "digit": digit}
        offsets, values = texts.sets
        of_text = {name: _sums(offsets, number[values]) for name, number in numbers.items()}
        # The words of each pair's query, one pair behind the other, and whether its title holds them.
        count = np.diff(offsets)[query_of]
        ends = np.cumsum(count)
        asked = values[np.arange(count.sum()) + np.repeat(offsets[query_of] - ends + count, count)]
        held = texts.holds(np.repeat(title_of, count), asked)
        bounds = np.concatenate([[0], ends])
        shared = {name: _sums(bounds, held * number[asked]) for name, number in numbers.items()}
        head = _greatest(*texts.ordered, self._focus[rows])
        return {
            "match_query_words": _share(shared["count"], of_text["count"][query_of]),
            "match_title_words": _share(shared["count"], of_text["count"][title_of]),
            "match_query_length": np.log1p(of_text["count"])[query_of],
            "match_title_length": np.log1p(of_text["count"])[title_of],
            "match_weighted_words": _share(shared["weight"], of_text["weight"][query_of]),
            "match_weighted_title": _share(shared["weight"], of_text["weight"][title_of]),
            "match_missing": _maxima(bounds, np.where(held, 0.0, weight[asked])) / self._weight[self._unknown],
            "match_head": texts.holds(title_of, head[query_of]),
            "match_last": texts.holds(title_of, texts.last[query_of]),
            "match_query_digits": _share(shared["digit"], of_text["digit"][query_of], of_none=1.0),
            "match_brand": _share(shared["brand"], of_text["brand"][query_of], of_none=1.0),
        }

    def _trigram_features(self, sets: pl.Series, query_of: np.ndarray, title_of: np.ndarray) -> dict[str, np.ndarray]:
        pairs = pl.DataFrame({"query": sets[query_of], "title": sets[title_of]})
        shared = pairs.select(pl.col("query").list.set_intersection("title")).to_series()
        count = sets.list.len().to_numpy().astype(np.float64)
        shared_offsets, shared_values = _flat(shared)
        both, first, second = np.diff(shared_offsets), count[query_of], count[title_of]
        weights = np.zeros(len(sets))
        asked = np.unique(query_of)
        offsets, values = _flat(sets[asked])
        weights[asked] = _sums(offsets, self._weights_of(values))
        return {
            "match_query_trigrams": _share(both, first),
            "match_trigrams": _share(both, first + second - both),
            "match_weighted_trigrams": _share(
                _sums(shared_offsets, self._weights_of(shared_values)), weights[query_of]
            ),
        }

    def _weights_of(self, trigrams: np.ndarray) -> np.ndarray:
        if not len(self._trigrams):
            return np.full(len(trigrams), self._weight[self._unknown])
        place = np.searchsorted(self._trigrams, trigrams).clip(max=len(self._trigrams) - 1)
        known = self._trigrams[place] == trigrams
        return np.where(known, self._trigram_weight[place], self._weight[self._unknown])

    def _measure_features(self, texts: "_Texts", query_of: np.ndarray, title_of: np.ndarray) -> dict[str, np.ndarray]:
        held, conflict = np.ones(len(query_of)), np.zeros(len(query_of))
        asked = texts.measures(np.unique(query_of), self._units)
        rows = np.flatnonzero(np.isin(query_of, [text for text, found in asked.items() if found]))
        stated = texts.measures(np.unique(title_of[rows]), self._units)
        for row, query, title in zip(rows.tolist(), query_of[rows].tolist(), title_of[rows].tolist(), strict=True):
            lacking = asked[query] - stated[title]
            held[row] = 1 - len(lacking) / len(asked[query])
            conflict[row] = not {unit for unit, _ in lacking}.isdisjoint(unit for unit, _ in stated[title])
        return {"match_measures": held, "match_measure_conflict": conflict}


@dataclass(frozen=True)
class _Texts:
    """Words and trigrams of T distinct texts.

    Attributes:
        lower: the texts in lower case, strings [T].
        words: the distinct words of all texts, without plurals, strings [W].
        ordered: offsets [T + 1] and numbers of the texts' words, in their order.
        trigrams: distinct trigrams of the bytes of ` text `, lists of uint32 [T].
    """

    lower: pl.Series
    words: pl.Series
    ordered: tuple[np.ndarray, np.ndarray]
    trigrams: pl.Series

    @classmethod
    def of(cls, texts: list[str]) -> "_Texts":
        frame = pl.DataFrame({"text": texts}, schema={"text": pl.String}).select(
            pl.col("text").str.to_lowercase(), words=lower_words(pl.col("text"))
        )
        offsets, flat = _flat(frame["words"])
        number_of: dict[str, int] = {}
        numbers = np.fromiter((number_of.setdefault(word, len(number_of)) for word in flat), np.int64, len(flat))
        merged_of: dict[str, int] = {}
        merged = np.array([merged_of.setdefault(_singular(word), len(merged_of)) for word in number_of], np.int64)
        words = pl.Series(list(merged_of), dtype=pl.String)
        return cls(frame["text"], words, (offsets, merged[numbers]), _trigrams(frame["text"]))

    @cached_property
    def _keys(self) -> np.ndarray:
        """text * W + word for each word of each text, distinct and in ascending order."""
        offsets, numbers = self.ordered
        return np.unique(np.repeat(np.arange(len(self.lower)), np.diff(offsets)) * len(self.words) + numbers)

    @property
    def sets(self) -> tuple[np.ndarray, np.ndarray]:
        """Offsets [T + 1] and numbers of the distinct words of each text."""
        bounds = np.arange(len(self.lower) + 1) * len(self.words)
        return np.searchsorted(self._keys, bounds), self._keys % max(len(self.words), 1)

    @property
    def last(self) -> np.ndarray:
        """Number of each text's last word, int64 [T]; -1 without words."""
        offsets, numbers = self.ordered
        filled = offsets[1:] > offsets[:-1]
        return np.where(filled, np.append(numbers, -1)[offsets[1:] - 1], -1)

    def holds(self, text: np.ndarray, word: np.ndarray) -> np.ndarray:
        """Whether each text [n] holds its word [n]; none holds -1."""
        if not len(self._keys):
            return np.zeros(len(word), bool)
        keys = text * len(self.words) + word
        place = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        return (self._keys[place] == keys) & (word >= 0)

    def measures(self, wanted: np.ndarray, units: Set[str]) -> dict[int, set[tuple[str, str]]]:
        """Measures of some texts, by their numbers: those with one of the units."""
        return {
            text: {measure for measure in _measures(lower) if measure[0] in units}
            for text, lower in zip(wanted.tolist(), self.lower[wanted].to_list(), strict=True)
        }


def _singular(word: str) -> str:
    """A word without an English ending of the plural."""
    if len(word) < 4 or word[-1] != "s" or not word.isalpha():
        return word
    if len(word) >= 5 and word.endswith("ies"):
        return f"{word[:-3]}y"
    if (len(word) >= 5 and word.endswith(("sses", "ches", "shes"))) or word.endswith("xes"):
        return word[:-2]
    return word if word[-2] in "sui" else word[:-1]


def _measures(lower: str) -> set[tuple[str, str]]:
    """Distinct units, words or signs, with the number before them: pairs (unit, number)."""
    found = set()
    for number, word in _MEASURE.findall(lower):
        # A word ends before characters such as the raised 2, which count as numbers.
        unit = word if word.isalpha() or len(word) == 1 else "".join(takewhile(str.isalpha, word))
        if unit.isalpha() or unit in _SIGNS:
            unit = _singular(unit)
            found.add((_UNIT_NAMES.get(unit, unit), number.replace(",", ".")))
    return found


def _word_statistics(texts: _Texts, items: pl.DataFrame) -> pl.DataFrame:
    """Columns word, titles (that hold it), focus, brand, unit, for words of at least two titles and for units."""
    offsets, words = texts.sets
    rows = pl.DataFrame({"title": np.repeat(np.arange(len(items)), np.diff(offsets)), "word": words})
    category = items["category"].cast(pl.String).fill_null("")
    brand = items["brand"].cast(pl.String).fill_null("")
    rows = rows.with_columns(category=category.gather(rows["title"]))
    shares = category.value_counts().select("category", share=pl.col("count") / len(items))
    counted = rows.group_by("word", "category").len().join(shares, on="category")
    seen = (pl.col("len") + _CATEGORY_PRIOR * pl.col("share")) / (pl.col("titles") + _CATEGORY_PRIOR)
    rest = _CATEGORY_PRIOR / (pl.col("titles") + _CATEGORY_PRIOR)
    titles = rows.group_by("word").agg(titles=pl.len())
    focus = (
        counted.join(titles, on="word")
        .group_by("word")
        .agg(
            (seen * (seen / pl.col("share")).log()).sum().alias("focus"),
            (rest * rest.log()).first().alias("rest"),
            unseen=1 - pl.col("share").sum(),
        )
        .select("word", focus=pl.col("focus") + pl.col("unseen") * pl.col("rest"))
    )
    named = _Texts.of(brand.to_list())
    offsets, words = named.sets
    brands = pl.DataFrame({"title": np.repeat(np.arange(len(items)), np.diff(offsets)), "name": named.words[words]})
    spelled = rows.select("title", "word", name=texts.words.gather(rows["word"]))
    branded = spelled.join(brands, on=["title", "name"], how="semi").group_by("word").agg(branded=pl.len())
    known = titles.join(focus, on="word").join(branded, on="word", how="left")
    known = known.select(
        pl.col("titles", "focus"),
        word=texts.words.gather(known["word"]),
        brand=(2 * pl.col("branded").fill_null(0) >= pl.col("titles")),
    )
    units = Counter(unit for lower in texts.lower.to_list() for unit in {unit for unit, _ in _measures(lower)})
    measured = pl.DataFrame(
        {"word": list(units), "measured": list(units.values())}, schema={"word": pl.String, "measured": pl.UInt32}
    )
    return (
        known.join(measured, on="word", how="full", coalesce=True)
        .with_columns(pl.col("titles", "measured").fill_null(0))
        .with_columns(unit=(pl.col("measured") >= _LEAST_UNIT_TITLES) & (2 * pl.col("measured") >= pl.col("titles")))
        .filter((pl.col("titles") >= _LEAST_TITLES) | pl.col("unit"))
        .select("word", "titles", "focus", "brand", "unit")
    )


def _trigrams(texts: pl.Series) -> pl.Series:
    """Distinct trigrams of the UTF-8 bytes of ` text `, as lists of UInt32."""
    padded = (" " + texts + " ").to_arrow().cast(pa.large_binary())
    offsets = np.frombuffer(padded.buffers()[1], np.int64)[padded.offset : padded.offset + len(padded) + 1]
    data = np.frombuffer(padded.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]].astype(np.uint32)
    offsets = offsets - offsets[0]
    if not len(padded):
        return pl.Series([], dtype=pl.List(pl.UInt32))
    codes = np.zeros(len(data), np.uint32)
    codes[:-2] = (data[:-2] << 16) | (data[1:-1] << 8) | data[2:]
    # A trigram starts at every byte of a text except its last two (a padded text has at least two bytes).
    kept = np.ones(len(data), bool)
    kept[offsets[1:] - 1] = False
    kept[offsets[1:] - 2] = False
    return _lists(np.concatenate([[0], np.cumsum(np.diff(offsets) - 2)]), codes[kept]).list.unique()


def _lists(offsets: np.ndarray, values: np.ndarray) -> pl.Series:
    """Lists of uint32: list i holds `values[offsets[i] : offsets[i + 1]]`."""
    return pl.Series(pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(values, pa.uint32())))


def _flat(lists: pl.Series) -> tuple[np.ndarray, Any]:
    """Offsets [n + 1] and values of lists: an array of numbers, or a list of strings."""
    array = lists.to_arrow()
    offsets = array.offsets.to_numpy()
    values = array.values[offsets[0] : offsets[-1]]
    flat = values.to_numpy(zero_copy_only=False) if pa.types.is_integer(values.type) else values.to_pylist()
    return offsets - offsets[0], flat


def _sums(offsets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum of the weights of each list, float64 [n]."""
    total = np.concatenate([[0.0], np.cumsum(weights, dtype=np.float64)])
    return np.asarray(total[offsets[1:]] - total[offsets[:-1]])


def _maxima(offsets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Largest weight of each list, float64 [n]; 0 of an empty list."""
    found = np.zeros(len(offsets) - 1)
    filled = np.flatnonzero(np.diff(offsets))
    if len(filled):
        found[filled] = np.maximum.reduceat(weights, offsets[filled])
    return found


def _greatest(offsets: np.ndarray, values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The value of most weight of each list, of equal ones the last, int64 [n]; -1 of an empty list."""
    found = np.full(len(offsets) - 1, -1, np.int64)
    row = np.repeat(np.arange(len(found)), np.diff(offsets))
    order = np.lexsort((np.arange(len(row)), weight[values], row))
    found[row[order]] = values[order]  # the last of a row stays
    return found


def _share(part: np.ndarray, whole: np.ndarray, of_none: float = 0.0) -> np.ndarray:
    """part / whole, and `of_none` where the whole is 0."""
    return np.where(whole > 0, part / np.maximum(whole, 1e-9), of_none)

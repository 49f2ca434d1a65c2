"""Lexical bands: how much of a query's wording a title holds, in three steps that mean the same in every catalogue.

| band | share of the query's distinct words that stand in the title |
|---|---|
| none | 0: only meaning can relate the two (synonyms, other languages), or nothing does |
| some | between: the usual near miss, e.g. the right brand and the wrong model |
| all | 1: what any search finds first; wrong ones among them are accessories and parts |

The bounds are fixed, not quantiles: where a search engine matched words, nearly all pairs share all of them, and
quantiles would cut inside `all` and leave the rare bands, where a teacher tells most, unseen [ours]. Han and Kana text
has no blanks between words; its character bigrams count as words.
"""

import re

import numpy as np
import polars as pl

from prectr.core.text import neighbour_pairs

BANDS = ("none", "some", "all")

_HAN_KANA = "[\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003134f]"
_STARTS_HAN_KANA = re.compile(_HAN_KANA)
_ROWS_AT_ONCE = 500_000
"""Rows whose words are spread out at a time: some 100 MB."""


def lexical_bands(queries: pl.Series, titles: pl.Series) -> pl.Series:
    """The band of each pair.

    Args:
        queries: [n] texts in normal form.
        titles: [n] texts in normal form.

    Returns:
        [n] of `BANDS`; "none" for a query without a letter or digit.
    """
    rows = pl.DataFrame({"query": queries, "title": titles})
    words = rows.select("query").unique().with_columns(_spaced("query").alias("spaced"))
    words = words.select(
        "query", words=pl.Series([_words(text) for text in words["spaced"].to_list()], dtype=pl.List(pl.String))
    )
    spaced = rows.select("title").unique().with_columns(_spaced("title").alias("spaced"))
    shares = [
        _shares(part.join(words, on="query", maintain_order="left").join(spaced, on="title", maintain_order="left"))
        for part in rows.iter_slices(_ROWS_AT_ONCE)
    ]
    share = pl.Series("band", np.concatenate(shares) if shares else [], dtype=pl.Float64)
    return pl.select(
        pl.when(share <= 0)
        .then(pl.lit("none"))
        .when(share < 1)
        .then(pl.lit("some"))
        .otherwise(pl.lit("all"))
        .alias("band")
    )["band"]


def _shares(rows: pl.DataFrame) -> np.ndarray:
    """Share of each row's `words` that `spaced` holds: [n]."""
    spread = rows.with_row_index("row").select("row", "spaced", "words").explode("words").drop_nulls("words")
    held = spread.select(pl.col("spaced").str.contains(pl.col("words"), literal=True)).to_series().to_numpy()
    row = spread["row"].to_numpy()
    count = np.bincount(row, minlength=len(rows))
    return np.bincount(row, weights=held, minlength=len(rows)) / np.maximum(count, 1)


def _spaced(column: str) -> pl.Expr:
    """The text's words between single blanks, one at both ends: a word stands in it if ` word ` does."""
    apart = pl.col(column).str.replace_all(f"({_HAN_KANA}+)", " $1 ")
    return pl.format(" {} ", apart.str.replace_all(r"[^\p{L}\p{N}\p{M}]+", " ").str.strip_chars(" "))


def _words(spaced: str) -> list[str]:
    """What must stand in a title: ` word ` for each distinct word, the bigrams of Han and Kana text as they are."""
    found: dict[str, None] = {}
    for word in spaced.split():
        if _STARTS_HAN_KANA.match(word):
            found |= dict.fromkeys(neighbour_pairs(word))
        else:
            found[f" {word} "] = None
    return list(found)

"""Lexical bands: the share of a query's words that a title holds, in three steps for all catalogues.

| band | share of the query's distinct words that are in the title |
|---|---|
| none | 0: related by meaning only (synonyms, other languages), or unrelated |
| some | between 0 and 1: the usual near miss, e.g. the right brand and the wrong model |
| all | 1: what every search engine ranks first; the wrong items among them are accessories and parts |

The bounds are fixed and not quantiles. Where a search engine matched words, nearly all pairs share all words: quantiles
would then split `all` and hide the rare bands, in which a teacher's labels add most [ours]. Han and Kana text has no
blanks between words; its character bigrams count as words.
"""

import re

import numpy as np
import polars as pl

from prectr.core.text import neighbour_pairs

BANDS = ("none", "some", "all")

_HAN_KANA = "[\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003134f]"
_STARTS_HAN_KANA = re.compile(_HAN_KANA)
_CHUNK_ROWS = 500_000
"""Rows whose words are expanded at a time, about 100 MB."""


def lexical_bands(queries: pl.Series, titles: pl.Series) -> pl.Series:
    """Compute the band of each pair.

    Args:
        queries: [n] texts in normal form.
        titles: [n] texts in normal form.

    Returns:
        [n] values of `BANDS`; "none" for a query without a letter or digit.
    """
    rows = pl.DataFrame({"query": queries, "title": titles})
    words = rows.select("query").unique().with_columns(_spaced("query").alias("spaced"))
    words = words.select(
        "query", words=pl.Series([_words(text) for text in words["spaced"].to_list()], dtype=pl.List(pl.String))
    )
    spaced = rows.select("title").unique().with_columns(_spaced("title").alias("spaced"))
    shares = [
        _shares(part.join(words, on="query", maintain_order="left").join(spaced, on="title", maintain_order="left"))
        for part in rows.iter_slices(_CHUNK_ROWS)
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
    word_rows = rows.with_row_index("row").select("row", "spaced", "words").explode("words").drop_nulls("words")
    held = word_rows.select(pl.col("spaced").str.contains(pl.col("words"), literal=True)).to_series().to_numpy()
    row = word_rows["row"].to_numpy()
    count = np.bincount(row, minlength=len(rows))
    return np.bincount(row, weights=held, minlength=len(rows)) / np.maximum(count, 1)


def _spaced(column: str) -> pl.Expr:
    """The text's words separated by single blanks, with a blank at both ends: it holds a word if it holds ` word `."""
    separated = pl.col(column).str.replace_all(f"({_HAN_KANA}+)", " $1 ")
    return pl.format(" {} ", separated.str.replace_all(r"[^\p{L}\p{N}\p{M}]+", " ").str.strip_chars(" "))


def _words(spaced: str) -> list[str]:
    """Texts to look for in a title: ` word ` for each distinct word, and the bigrams of Han and Kana text."""
    distinct: dict[str, None] = {}
    for word in spaced.split():
        if _STARTS_HAN_KANA.match(word):
            distinct |= dict.fromkeys(neighbour_pairs(word))
        else:
            distinct[f" {word} "] = None
    return list(distinct)

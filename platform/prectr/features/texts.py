"""Token ids once per distinct text: pairs name their query's and their title's tokens, and how many of them they keep.

A pair's input is `[CLS] query [SEP] title [SEP]`, cut to the encoder's length: of a long text, pairs keep beginnings of
different lengths, so the longest of them is stored.
"""

import numpy as np
import polars as pl

from prectr.relevance.tokenisation import PairTokens, copy_segments

TEXT_COLUMNS = ("query_text", "title_text", "query_length", "title_length")
_START, _SEPARATOR, _FIRST = 0, 1, 2
"""Rows of the text table: the two special tokens, then the texts."""


def split_texts(pairs: pl.DataFrame, titles: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Take the texts out of pairs.

    Args:
        pairs: query, item_id, input_ids and query_tokens (those of the first segment, with its two special tokens).
        titles: item_id and title.

    Returns:
        the text table (`tokens`, a list a row), and the pairs with TEXT_COLUMNS in place of their tokens.
    """
    segmented = pairs.join(titles, on="item_id", how="left", maintain_order="left").with_columns(
        query_length=(pl.col("query_tokens") - 2).cast(pl.Int16),
        title_length=(pl.col("input_ids").list.len() - pl.col("query_tokens") - 1).cast(pl.Int16),
    )
    first = pairs["input_ids"][:1]
    special = [first.list.first().alias("tokens"), first.list.last().alias("tokens")]
    texts = [pl.concat([one.cast(pl.Int32) for one in special]).reshape((-1, 1)).arr.to_list().to_frame()]
    numbered, count = segmented, _FIRST
    for name, begin in (("query", pl.lit(1)), ("title", pl.col("query_tokens"))):
        tokens = pl.col("input_ids").list.slice(begin, pl.col(f"{name}_length"))
        longest = (
            segmented.group_by(name).agg(tokens.get(pl.col(f"{name}_length").arg_max()).alias("tokens")).sort(name)
        )
        texts.append(longest.select(pl.col("tokens").cast(pl.List(pl.Int32))))
        places = longest.select(name, (pl.int_range(pl.len(), dtype=pl.Int32) + count).alias(f"{name}_text"))
        numbered = numbered.join(places, on=name, how="left", maintain_order="left", nulls_equal=True)
        count += longest.height
    return pl.concat(texts), numbered.drop("title", "input_ids", "query_tokens")


def join_texts(texts: pl.DataFrame, pairs: pl.DataFrame) -> PairTokens:
    """Put the tokens of pairs together again."""
    lengths = texts["tokens"].list.len().to_numpy().astype(np.int64)
    begin = np.r_[0, np.cumsum(lengths)]
    tokens = texts["tokens"].explode(empty_as_null=False).to_numpy().astype(np.int32)
    query, title = (pairs[name].to_numpy() for name in ("query_text", "title_text"))
    query_length, title_length = (pairs[name].to_numpy().astype(np.int64) for name in ("query_length", "title_length"))
    offsets = np.r_[0, np.cumsum(query_length + title_length + 3)]
    start = offsets[:-1]
    values = np.empty(offsets[-1], np.int32)
    values[start] = tokens[begin[_START]]
    values[start + query_length + 1] = values[offsets[1:] - 1] = tokens[begin[_SEPARATOR]]
    copy_segments(tokens, begin[query], query_length, values, start + 1)
    copy_segments(tokens, begin[title], title_length, values, start + query_length + 2)
    return PairTokens(values, offsets, (query_length + 2).astype(np.int16))

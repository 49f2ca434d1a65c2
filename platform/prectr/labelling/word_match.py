"""Words of a query that an item's title holds, for the placeholders `{shared}` and `{missing}` of a prompt.

A small model hardly notices that two words are equal. A prompt that states the exact matches leaves it the part that
words alone do not decide (the cue of MarkedBERT, SIGIR 2020) [ours]. Chinese and Japanese put no blanks between words:
there every two neighbouring characters count as a word.
"""

from collections.abc import Sequence

import polars as pl

from prectr.core.text import lower_words

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}ー"
"""Scripts written without blanks between words, for use inside a character class of a regular expression."""
_TOKEN = rf"[{UNSPACED}]+|[\p{{L}}\p{{N}}--[{UNSPACED}]]+"


def query_words_by_match(
    queries: Sequence[str], titles: Sequence[str], empty: str = "none"
) -> tuple[list[str], list[str]]:
    """Split each query's words into those that the title holds and those that it lacks, in the query's order.

    Args:
        queries: [n] texts; words are compared in lower case.
        titles: [n] texts.
        empty: text used if there is no such word.

    Returns:
        Two lists [n], shared and missing: the words joined by blanks, or `empty`.
    """
    pairs = pl.DataFrame(
        {"query": list(queries), "title": list(titles)}, schema={"query": pl.String, "title": pl.String}
    ).with_row_index("row")
    query_words = _words(pairs.select("row", text="query"), spans=(2,))
    # A query may be one character long, so a title's single characters count as words too.
    title_words = _words(pairs.select("row", text="title"), spans=(1, 2)).unique().with_columns(held=pl.lit(True))
    matched = query_words.join(title_words, on=["row", "word"], how="left", maintain_order="left")
    is_held = pl.col("held").is_not_null()
    joined = matched.group_by("row").agg(
        shared=pl.col("word").filter(is_held).str.join(" "), missing=pl.col("word").filter(~is_held).str.join(" ")
    )
    filled = (
        pairs.select("row")
        .join(joined, on="row", how="left", maintain_order="left")
        .select(pl.col("shared", "missing").fill_null("").replace("", empty))
    )
    return filled["shared"].to_list(), filled["missing"].to_list()


def _words(texts: pl.DataFrame, spans: tuple[int, ...]) -> pl.DataFrame:
    """Split texts into words, in order: columns row, word.

    Unspaced script gives its substrings of each length in `spans`; a shorter text gives itself.
    """
    tokens = (
        texts.select("row", token=lower_words(pl.col("text"), _TOKEN))
        .explode("token", empty_as_null=False)
        .with_columns(unspaced=pl.col("token").str.contains(rf"^[{UNSPACED}]"))
    )
    if not tokens["unspaced"].any():
        return tokens.select("row", word="token")
    length = pl.col("token").str.len_chars().cast(pl.Int64)
    parts = []
    for span in spans:
        starts = pl.when("unspaced").then((length - span + 1).clip(1)).otherwise(1)
        size = pl.when("unspaced").then(span).otherwise(length)
        parts.append(
            tokens.with_columns(start=pl.int_ranges(0, starts), size=size)
            .explode("start")
            .select("row", word=pl.col("token").str.slice("start", "size"))
        )
    return pl.concat(parts)

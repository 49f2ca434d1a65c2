"""Token ids are stored once for each distinct text and joined again to the pairs that were scored."""

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from prectr.features.texts import join_texts, split_texts
from prectr.relevance.tokenisation import PairTokeniser, train_wordpiece

TEXTS = ["nokia 3310 blue", "sofa", "a very long title of a sofa that nobody could ever read to its end", "?"]
TOKENIZER = train_wordpiece(TEXTS, 200)


@given(st.lists(st.tuples(st.sampled_from(TEXTS), st.sampled_from(TEXTS)), min_size=1, max_size=12), st.integers(5, 40))
def test_pairs_are_put_together_as_they_were(pairs: list[tuple[str, str]], max_length: int) -> None:
    queries, titles = zip(*pairs)
    tokens = PairTokeniser(TOKENIZER, max_length).encode(queries, titles)
    cuts = [tokens.values[start:end].tolist() for start, end in zip(tokens.offsets, tokens.offsets[1:])]
    table = pl.DataFrame(
        {
            "query": queries,
            "item_id": [f"i{TEXTS.index(title)}" for title in titles],
            "input_ids": pl.Series(cuts, dtype=pl.List(pl.Int32)),
            "query_tokens": tokens.query_tokens,
        }
    )
    items = pl.DataFrame({"item_id": [f"i{number}" for number in range(4)], "title": TEXTS})
    texts, stored = split_texts(table, items)
    assert texts.height == 2 + len(set(queries)) + len(set(titles))
    assert not {"input_ids", "query_tokens", "title"} & set(stored.columns)
    joined = join_texts(texts, stored)
    for name in ("values", "offsets", "query_tokens"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(tokens, name))

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prectr.relevance.tokenisation import PairTokeniser, train_wordpiece

TEXTS = ["blue nokia phone", "battery for nokia 3310", "red shoe", ""]
TOKENIZER = train_wordpiece(TEXTS, 200)
TOKENISER = PairTokeniser(TOKENIZER, 12)


@given(st.lists(st.tuples(st.sampled_from(TEXTS), st.sampled_from(TEXTS)), min_size=1, max_size=8))
def test_assembled_pairs_equal_one_by_one(pairs):
    tokens = TOKENISER.encode([query for query, _ in pairs], [title for _, title in pairs])
    start, separator = TOKENIZER.token_to_id("[CLS]"), TOKENIZER.token_to_id("[SEP]")
    for row, (query, title) in enumerate(pairs):
        first = TOKENIZER.encode(query, add_special_tokens=False).ids[:4]
        second = TOKENIZER.encode(title, add_special_tokens=False).ids[: 9 - len(first)]
        wanted = [start, *first, separator, *second, separator]
        assert tokens.values[tokens.offsets[row] : tokens.offsets[row + 1]].tolist() == wanted
        assert tokens.query_tokens[row] == len(first) + 2


def test_token_types_mark_segments_and_exact_matches():
    tokeniser = PairTokeniser(train_wordpiece(["blue nokia phone case"] * 5, 400), 12)
    tokens = tokeniser.encode(["blue nokia", "phone"], ["nokia case", "case"])
    padded = tokens.padded(np.array([0, 1]))
    assert padded["token_type_ids"].tolist() == [[0, 0, 2, 0, 3, 1, 1], [0, 0, 0, 1, 1, 0, 0]]
    assert padded["attention_mask"].tolist() == [[1] * 7, [1] * 5 + [0] * 2]


def test_queries_without_titles_are_refused():
    with pytest.raises(ValueError, match="2 queries for 1 titles"):
        TOKENISER.encode(["a", "b"], ["c"])

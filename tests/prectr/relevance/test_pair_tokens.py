import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prectr.relevance import tokenisation
from prectr.relevance.tokenisation import PairTokeniser, PairTokens, train_wordpiece

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


@given(st.lists(st.integers(3, 6), max_size=60), st.integers(1, 16))
def test_batches_hold_each_pair_once_and_end_where_the_length_changes(lengths, most):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = PairTokens(np.zeros(offsets[-1], np.int32), offsets, np.full(len(lengths), 2, np.int16))
    rows = np.arange(len(lengths))[::-1]
    batches = list(tokens.batches(rows, most))
    assert sorted(place for places in batches for place in places) == list(range(len(lengths)))
    found = [tokens.lengths[rows[places]].tolist() for places in batches]
    assert [length for batch in found for length in batch] == sorted(lengths)
    assert all(len(batch) <= most for batch in found)
    for batch, later in itertools.pairwise(found):
        assert len(batch) == most or (len(batch) > most // 4 and batch[-1] < later[0])
    for batch in found:
        assert len(set(batch[most // 4 :])) <= 1, "longer pairs joined a batch that was full enough"


def test_texts_are_tokenised_once_and_no_more_than_a_bound_of_them_is_kept(monkeypatch):
    class Counting:
        asked: list[str] = []
        token_to_id = TOKENIZER.token_to_id

        def encode_batch_fast(self, texts, add_special_tokens):
            self.asked += texts
            return TOKENIZER.encode_batch_fast(texts, add_special_tokens=add_special_tokens)

    monkeypatch.setattr(tokenisation, "_CACHED_TEXTS", 3)
    tokeniser = PairTokeniser(Counting(), 12)
    first = tokeniser.encode(["red shoe"], ["blue nokia phone"])
    again = tokeniser.encode(["red shoe"], ["blue nokia phone"])
    assert Counting.asked == ["red shoe", "blue nokia phone"]
    assert again.values.tolist() == first.values.tolist()
    tokeniser.encode(["a", "b"], ["c", "d"])  # a and b make four texts, more than are kept: they are forgotten
    tokeniser.encode(["red shoe"], ["d"])
    assert Counting.asked[2:] == ["a", "b", "c", "d", "red shoe"]


def test_queries_without_titles_are_refused():
    with pytest.raises(ValueError, match="2 queries for 1 titles"):
        TOKENISER.encode(["a", "b"], ["c"])


def test_the_same_texts_give_the_same_tokenizer():
    draw = np.random.default_rng(3)
    texts = ["".join(draw.choice(list("abcdefghij é中"), 12)) for _ in range(200)]
    first, *others = [train_wordpiece(texts, 150).to_str() for _ in range(5)]
    assert all(other == first for other in others)
    assert "##a" in train_wordpiece(texts, 150).get_vocab()

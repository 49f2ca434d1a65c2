import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prectr.relevance.lexical import MATCH_FEATURES, LexicalBaseline, match_features


def test_features_by_hand():
    found = match_features(["Nokia 3310 blue", "sofa"], ["battery for nokia 3310", "couch"])
    assert list(found) == list(MATCH_FEATURES)
    assert np.allclose(found["match_query_words"], [2 / 3, 0])
    assert np.allclose(found["match_query_digits"], [1, 1])
    assert np.allclose(found["match_title_words"], [2 / 4, 0])
    assert np.allclose(found["match_title_length"], np.log1p([4, 1]))
    assert np.allclose(match_features(["3310"], ["105"])["match_query_digits"], 0)
    assert np.allclose(match_features(["nokia 3310"], ["my NOKIA 3310 here"])["match_phrase"], 1)


texts = st.text(alphabet="abé1 ", max_size=12)


@given(st.lists(st.tuples(texts, texts), max_size=6))
def test_trigrams_equal_a_brute_force(pairs):
    found = match_features([query for query, _ in pairs], [title for _, title in pairs])

    def trigrams(text):
        data = f" {text} ".encode()
        return {data[place : place + 3] for place in range(len(data) - 2)}

    for row, (query, title) in enumerate(pairs):
        first, second = trigrams(query), trigrams(title)
        assert np.isclose(found["match_trigrams"][row], len(first & second) / max(1, len(first | second)))
        assert np.isclose(found["match_query_trigrams"][row], len(first & second) / max(1, len(first)))


def test_the_baseline_gives_distributions_that_rise_with_the_overlap():
    titles = ["red shoe", "blue shoe", "green lamp", "old lamp"]
    queries = ["red shoe"] * 4
    baseline = LexicalBaseline(titles).fit(queries, titles, np.array([3, 1, 0, 0]))
    probabilities = baseline.probabilities(queries, titles)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert (probabilities >= 0).all()
    expected = probabilities @ np.arange(4)
    assert expected[0] > expected[1] > expected[2] == expected[3]

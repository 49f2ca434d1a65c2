import numpy as np

from prectr.relevance.lexical import LexicalBaseline


def test_the_baseline_gives_distributions_that_rise_with_the_overlap():
    titles = ["red shoe", "blue shoe", "green lamp", "old lamp"]
    queries = ["red shoe"] * 4
    baseline = LexicalBaseline(titles).fit(queries, titles, np.array([3, 1, 0, 0]))
    probabilities = baseline.probabilities(queries, titles)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert (probabilities >= 0).all()
    expected = probabilities @ np.arange(4)
    assert expected[0] > expected[1] > expected[2] == expected[3]

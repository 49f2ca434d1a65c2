import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prectr.core.errors import PrectrError
from prectr.relevance.match_features import MATCH_FEATURES, MatchTable

ITEMS = pl.DataFrame(
    {
        "title": [
            "Nokia 3310 phone blue",
            "Nokia phones 2 inch",
            "Phone case 5 inch",
            "Garden hose 10 m",
            "Hose for the garden 20 m",
            "Garden chairs 5 inch",
        ],
        "category": ["phones", "phones", "cases", "garden", "garden", "garden"],
        "brand": ["Nokia", "Nokia", None, None, None, None],
    }
)
TABLE = MatchTable.fit(ITEMS)


def _features(query: str, title: str) -> dict[str, float]:
    row = TABLE.features([query], [title])[0]
    return dict(zip(MATCH_FEATURES, row.tolist(), strict=True))


def test_shares_by_hand() -> None:
    found = _features("Nokia 3310 blue", "battery for nokia 3310")
    assert math.isclose(found["match_query_words"], 2 / 3, rel_tol=1e-6)
    assert math.isclose(found["match_title_words"], 2 / 4, rel_tol=1e-6)
    assert math.isclose(found["match_title_length"], math.log1p(4), rel_tol=1e-6)
    assert found["match_query_digits"] == 1 and _features("3310", "105")["match_query_digits"] == 0
    assert found["match_phrase"] == 0 and _features("nokia 3310", "my NOKIA 3310 here")["match_phrase"] == 1
    assert _features("garden chairs", "CHAIR of the Gardens")["match_query_words"] == 1, "plurals are folded"
    for plural, word in (
        ("berries", "berry"), ("ties", "tie"), ("boxes", "box"), ("glasses", "glass"), ("watches", "watch"),
        ("dishes", "dish"), ("shoes", "shoe"), ("lamps", "lamp"),
    ):  # fmt: skip
        assert _features(plural, word)["match_query_words"] == 1
    for one, other in (("cms", "cm"), ("bus", "bu"), ("gas", "ga"), ("news", "newss"), ("as", "a"), ("glass", "glas")):
        assert _features(one, other)["match_query_words"] == 0


def test_words_count_with_their_weights() -> None:
    """nokia is in 2 of 6 titles, blue in 1 (no row of its own, so as unknown)."""
    nokia, unknown = math.log(7 / 3) + 1, math.log(7) + 1
    found = _features("nokia blue", "a nokia")
    assert math.isclose(found["match_weighted_words"], nokia / (nokia + unknown), rel_tol=1e-6)
    assert math.isclose(found["match_weighted_title"], nokia / (nokia + unknown), rel_tol=1e-6)
    assert found["match_missing"] == 1
    assert _features("nokia blue", "blue nokia")["match_missing"] == 0


def test_the_head_word_is_the_one_that_tells_most_about_the_category() -> None:
    """hose is only in titles of garden; nokia comes last in the query."""
    words = dict(zip(TABLE._table["word"].to_list(), TABLE._table["focus"].to_list(), strict=True))
    assert words["nokia"] > words["garden"] > words["inch"]
    found = _features("nokia for the garden", "garden")
    assert (found["match_head"], found["match_last"]) == (0, 1)


def test_focus_is_the_divergence_of_smoothed_categories() -> None:
    """Two titles with nokia, both of phones, and five titles' worth of all categories: 2/6, 1/6, 3/6."""
    own = np.array([2 + 5 / 3, 5 / 6, 5 / 2]) / 7
    expected = (own * np.log(own / np.array([1 / 3, 1 / 6, 1 / 2]))).sum()
    assert math.isclose(TABLE._table.filter(pl.col("word") == "nokia")["focus"].item(), expected, rel_tol=1e-5)


def test_brands_and_measures() -> None:
    assert _features("nokia hose", "garden hose")["match_brand"] == 0
    assert _features("nokia hose", "nokia")["match_brand"] == 1 == _features("hose", "chair")["match_brand"]
    assert TABLE._table.filter("unit")["word"].to_list() == ["inch"]
    same, other, none = (_features('case 5"', title) for title in ("case 5 inches", "case 5.5 inch", "case"))
    assert (same["match_measures"], same["match_measure_conflict"]) == (1, 0)
    assert (other["match_measures"], other["match_measure_conflict"]) == (0, 1)
    assert (none["match_measures"], none["match_measure_conflict"]) == (0, 0)
    assert _features("case", "case 5 inch")["match_measures"] == 1


texts = st.text(alphabet='abé1" m', max_size=12)


@given(st.lists(st.tuples(texts, texts), max_size=6))
def test_trigrams_equal_a_brute_force_and_a_pair_depends_on_no_other(pairs: list[tuple[str, str]]) -> None:
    found = TABLE.features([query for query, _ in pairs], [title for _, title in pairs])
    assert found.shape == (len(pairs), len(MATCH_FEATURES)) and np.isfinite(found).all()
    column = MATCH_FEATURES.index

    def trigrams(text: str) -> set[bytes]:
        data = f" {text} ".encode()
        return {data[place : place + 3] for place in range(len(data) - 2)}

    for row, (query, title) in enumerate(pairs):
        np.testing.assert_allclose(TABLE.features([query], [title])[0], found[row], rtol=1e-6)
        first, second = trigrams(query), trigrams(title)
        assert np.isclose(found[row, column("match_trigrams")], len(first & second) / max(1, len(first | second)))
        assert np.isclose(found[row, column("match_query_trigrams")], len(first & second) / max(1, len(first)))


def test_weights_survive_a_file(tmp_path: Path) -> None:
    TABLE.save(tmp_path / "match.parquet")
    again = MatchTable.load(tmp_path / "match.parquet")
    pair = ["nokia 3310 5 inch"], ["Nokia phone 5 inch"]
    np.testing.assert_array_equal(again.features(*pair), TABLE.features(*pair))
    for content in (None, b"no parquet"):
        (tmp_path / "match.parquet").unlink(missing_ok=True)
        if content:
            (tmp_path / "match.parquet").write_bytes(content)
        with pytest.raises(PrectrError, match=r"match.parquet: cannot be read"):
            MatchTable.load(tmp_path / "match.parquet")


def test_a_catalogue_without_categories_brands_or_titles() -> None:
    bare = MatchTable.fit(ITEMS.with_columns(category=None, brand=None))
    assert bare.features(["nokia hose"], ["garden hose"])[0, MATCH_FEATURES.index("match_head")] == 1, "the last word"
    assert np.isfinite(MatchTable.fit(ITEMS.clear()).features(["a"], ["a b"])).all()

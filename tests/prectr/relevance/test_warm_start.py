import polars as pl

from prectr.relevance.warm_start import made_pairs


def test_made_grades_follow_the_share_of_words_held():
    items = pl.DataFrame(
        {"title": [f"Brand{i} red thing{i} x{i % 3}" for i in range(50)], "category": ["a > lamps", "a > chairs"] * 25}
    )
    pairs = made_pairs(items, 400, 3)
    assert len(pairs) == 400
    leaf = dict(zip(items["title"], ["lamps", "chairs"] * 25, strict=True))
    for query, title, grade in pairs.iter_rows():
        words, held = set(query.split()), {*title.lower().split(), leaf[title]}
        share = len(words & held) / len(words)
        assert grade == (3 if share == 1 else 2 if share >= 0.5 else 1 if share > 0 else 0)
    assert set(pairs["grade"]) == {0, 1, 2, 3}
    assert pairs.equals(made_pairs(items, 400, 3))


def test_an_empty_catalogue_makes_nothing():
    assert made_pairs(pl.DataFrame(schema={"title": pl.String, "category": pl.String}), 10, 0).is_empty()

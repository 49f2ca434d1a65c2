import numpy as np
import polars as pl

from prectr.data.made_pairs import random_pairs, same_category_pairs, without_logged
from prectr.data.tables import Tables

ITEMS = pl.DataFrame({"item_id": [f"i{n}" for n in range(400)], "category": [f"c{n % 4}" for n in range(400)]})
QUERIES = pl.Series("query", [f"q{n}" for n in range(50)])


def test_each_query_gets_its_share_of_distinct_pairs_spread_over_the_catalogue() -> None:
    pairs = random_pairs(QUERIES, ITEMS, 1000, seed=3, use="a")
    assert 950 < len(pairs) <= 1000 and pairs.is_duplicated().sum() == 0
    assert set(pairs.group_by("query").len()["len"]) <= {16, 17, 18, 19, 20}
    assert pairs["item_id"].n_unique() > 250
    assert len(pairs.join(random_pairs(QUERIES, ITEMS, 1000, seed=3, use="b"), on=pairs.columns)) < 100
    assert pairs.equals(random_pairs(QUERIES, ITEMS, 1000, seed=3, use="a"))
    assert len(pairs.join(random_pairs(QUERIES, ITEMS, 1000, seed=4, use="a"), on=pairs.columns)) < 100


def test_most_pairs_stay_when_catalogue_and_number_grow() -> None:
    small = random_pairs(QUERIES, ITEMS.head(380), 500, seed=3, use="a")
    large = random_pairs(QUERIES, ITEMS, 800, seed=3, use="a")
    assert len(small.join(large, on=small.columns, how="anti")) < 0.15 * len(small)


def test_pairs_of_the_category_that_a_query_shows_most() -> None:
    shown = pl.DataFrame(
        {"query": ["a", "a", "b", "x"], "item_id": ["i0", "i1", "i2", "gone"], "impressions": [9, 3, 1, 5]}
    )
    pairs = same_category_pairs(shown, ITEMS, 60, seed=0, use="a")
    found = pairs.join(ITEMS, on="item_id").group_by("query").agg(pl.col("category").unique())
    assert dict(found.iter_rows()) == {"a": ["c0"], "b": ["c2"]}
    assert (
        len(same_category_pairs(shown, ITEMS.with_columns(category=pl.lit(None, pl.String)), 60, seed=0, use="a")) == 0
    )


def test_nothing_to_draw_from() -> None:
    for pairs in (random_pairs(QUERIES.clear(), ITEMS, 9, 0, "a"), random_pairs(QUERIES, ITEMS.clear(), 9, 0, "a")):
        assert pairs.columns == ["query", "item_id"] and pairs.is_empty()
    assert random_pairs(QUERIES, ITEMS, 0, 0, "a").is_empty()


def test_pairs_that_were_shown_in_any_spelling_are_left_out(tmp_path) -> None:
    day = tmp_path / "impressions" / "date=2026-01-01"
    day.mkdir(parents=True)
    pl.DataFrame({"query": ["Red  Shoe"], "item_id": ["i1"]}).write_parquet(day / "part-0000.parquet")
    ITEMS.write_parquet(tmp_path / "items.parquet")
    from tests.manifests import write_manifest

    write_manifest(tmp_path, "simulate")
    pairs = pl.DataFrame({"query": ["red shoe", "red shoe"], "item_id": ["i1", "i2"], "grade": np.zeros(2)})
    assert without_logged(pairs, Tables(tmp_path))["item_id"].to_list() == ["i2"]

import polars as pl

from prectr.data.judgments import split_frame, split_of


def test_split_ignores_the_query_s_spelling():
    assert split_of("  NOKIA\u30003310 ") == split_of("nokia 3310")


def test_shares_of_the_split():
    shares = split_frame(f"query {number}" for number in range(5000))["split"].value_counts()
    share = dict(shares.with_columns(pl.col("count") / 5000).iter_rows())
    assert abs(share["train"] - 0.7) < 0.03
    assert abs(share["validation"] - 0.1) < 0.02
    assert abs(share["held-back"] - 0.2) < 0.03

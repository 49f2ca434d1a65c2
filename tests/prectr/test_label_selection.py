import json

import polars as pl
import pytest

from prectr.labelling.config import LabelConfig
from prectr.labelling.selection import distinct_pairs, select_pairs, traffic_strata
from prectr.labelling.split import read_judged, split_of
from prectr.relevance.config import ScoreConfig
from prectr.relevance.distillation_data import distillation_pairs
from prectr.relevance.scoring import pairs_to_score


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Forty queries over ten items: each query shown with items 0-5, candidates 6-8, some judged."""
    path = tmp_path_factory.mktemp("tables")
    queries, items = [f"query {number}" for number in range(40)], [f"i{number}" for number in range(10)]
    shown = [(query.upper() if place % 2 else query, item) for query in queries for place, item in enumerate(items[:6])]
    shown += [("query 0", "i0")] * 500
    unexposed = [(query, item) for query in queries for item in items[5:9]]
    for table, rows in (("impressions", shown), ("candidates", unexposed)):
        day = path / table / "date=2026-01-01"
        day.mkdir(parents=True)
        pl.DataFrame(rows, schema=["query", "item_id"], orient="row").write_parquet(day / "part-0000.parquet")
    judged = [(query, item, (int(item[1]) + place) % 4) for place, query in enumerate(queries) for item in items[4:7]]
    frame = pl.DataFrame(judged, schema={"query": pl.String, "item_id": pl.String, "grade": pl.Int8}, orient="row")
    frame.with_columns(source=pl.lit("human")).write_parquet(path / "judgments.parquet")
    pl.DataFrame({"item_id": items, "title": [f"title {i}" for i in items], "category": ["c"] * 10}).write_parquet(
        path / "items.parquet"
    )
    (path / "manifest.json").write_text(json.dumps({"stage": "simulate", "identity": "test"}))
    return path


def test_spellings_of_a_query_are_one_pair_and_exposure_wins(tables):
    pairs = distinct_pairs(tables)
    assert len(pairs) == 40 * 9
    assert pairs.filter(pl.col("exposed"))["item_id"].unique().sort().to_list() == [f"i{n}" for n in range(6)]
    assert pairs.filter((pl.col("query") == "query 0") & (pl.col("item_id") == "i0"))["impressions"].item() == 501


def test_the_query_with_most_traffic_is_head(tables):
    strata = dict(traffic_strata(distinct_pairs(tables)).iter_rows())
    assert strata["query 0"] == "head"
    assert set(strata.values()) >= {"head", "tail"}


def test_budget_shares_and_measured_pairs(tables):
    chosen = select_pairs(tables, LabelConfig(budget=150, unexposed_share=0.4))
    assert len(chosen) == 150 == len(chosen.unique(["query", "item_id"]))
    measured = read_judged(tables).filter(pl.col("split") != "train")
    assert len(chosen.filter(pl.col("origin") == "judged")) == len(measured)
    rest = chosen.filter(pl.col("origin") != "judged")
    assert rest.join(read_judged(tables), on=["query", "item_id"], how="semi").is_empty()
    assert abs((rest["origin"] == "unexposed").mean() - 0.4) < 0.1
    assert chosen.equals(select_pairs(tables, LabelConfig(budget=150, unexposed_share=0.4)))


def test_a_budget_above_what_there_is_takes_all(tables):
    everything = select_pairs(tables, LabelConfig(budget=10_000))
    training_gold = read_judged(tables).filter(pl.col("split") == "train")
    assert len(everything) == 40 * 9 - len(training_gold)


@pytest.fixture(scope="module")
def labels(tables, tmp_path_factory):
    path = tmp_path_factory.mktemp("labels")
    chosen = select_pairs(tables, LabelConfig(budget=10_000)).select("query", "item_id")
    levels = [pl.lit(value, pl.Float32).alias(f"level_{n}") for n, value in enumerate((0.1, 0.2, 0.3, 0.4))]
    chosen.with_columns(levels).write_parquet(path / "labels.parquet")
    return path


def test_nothing_of_a_held_back_query_is_distilled(tables, labels):
    pairs = distillation_pairs(tables, labels)
    assert {split_of(query) for query in pairs["query"]} == {"train", "validation"}
    assert (pairs.filter(pl.col("split") == "validation")["grade"] >= 0).all()
    assert pairs.filter((pl.col("split") == "train") & (pl.col("grade") < 0))["level_3"].null_count() == 0


def test_a_judgment_outranks_a_label_and_pairs_are_dense(tables, labels):
    pairs = pairs_to_score(tables, labels, ScoreConfig(judgment_confidence=0.97))
    assert pairs["pair"].to_list() == list(range(len(pairs)))
    assert pairs.select("query", "item_id").equals(pairs.select("query", "item_id").sort("query", "item_id"))
    joined = pairs.join(read_judged(tables).select("query", "item_id", "grade"), on=["query", "item_id"], how="left")
    judged = joined.filter(pl.col("grade") == 2)
    assert set(judged["source"]) == {"judgment"}
    assert judged["level_2"].to_list() == pytest.approx([0.97] * len(judged))
    assert judged["level_0"].to_list() == pytest.approx([0.01] * len(judged))
    assert set(joined.filter(pl.col("grade").is_null())["source"]) == {"teacher"}
    assert set(pairs_to_score(tables, None, ScoreConfig())["source"].unique()) == {"judgment", None}

"""Which of teacher and encoder has priority: the one that predicts human grades of held-back queries better."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.data.judgments import split_of
from prectr.data.tables import Tables
from prectr.metrics import ndcg
from prectr.relevance import sources
from prectr.relevance.batch_scoring import pairs_to_score
from prectr.relevance.config import ScoreConfig
from prectr.relevance.sources import (
    ENCODER_WEIGHT,
    LEAST_PAIRS,
    UNMEASURED_WEIGHT,
    level_weights,
    order_of_sources,
)
from tests.manifests import write_manifest

QUERIES, ITEMS = [f"query {number}" for number in range(200)], ["i0", "i1"]
GRADES = {
    (query, item): (place + number) % 4 for place, query in enumerate(QUERIES) for number, item in enumerate(ITEMS)
}
HELD_BACK = [query for query in QUERIES if split_of(query) == "held-back"]


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    path = tmp_path / "tables"
    day = path / "impressions" / "date=2026-01-01"
    day.mkdir(parents=True)
    shown = [(query, item) for query in QUERIES for item in [*ITEMS, "i2"]]
    pl.DataFrame(shown, schema=["query", "item_id"], orient="row").write_parquet(day / "part-0000.parquet")
    judged = [(query, item, grade) for (query, item), grade in GRADES.items()]
    schema = {"query": pl.String, "item_id": pl.String, "grade": pl.Int8}
    pl.DataFrame(judged, schema=schema, orient="row").write_parquet(path / "judgments.parquet")
    items = {"item_id": [*ITEMS, "i2"], "title": ["title i0", "title i1", "title i2"], "category": ["c"] * 3}
    pl.DataFrame(items).write_parquet(path / "items.parquet")
    day = path / "candidates" / "date=2026-01-01"
    day.mkdir(parents=True)
    pl.DataFrame(shown[:1], schema=["query", "item_id"], orient="row").write_parquet(day / "part-0000.parquet")
    write_manifest(path, "simulate")
    return Tables(path)


def levels_of(queries: Sequence[str], items: Sequence[str], right: float) -> np.ndarray:
    """Levels that give the judged grade the probability `right`, float [n, 4]."""
    levels = np.full((len(queries), 4), (1 - right) / 3)
    for row, pair in enumerate(zip(queries, items, strict=True)):
        levels[row, GRADES.get(pair, 0)] = right
    return levels


def labels_with(folder: Path, right_held_back: float, right_train: float) -> Path:
    """Labels of all pairs, as good as said on held-back queries and on the others."""
    folder.mkdir()
    pairs = [(query, item) for query in QUERIES for item in [*ITEMS, "i2"]]
    queries, items = [query for query, _ in pairs], [item for _, item in pairs]
    held = np.isin(queries, HELD_BACK)[:, None]
    levels = np.where(held, levels_of(queries, items, right_held_back), levels_of(queries, items, right_train))
    frame = pl.DataFrame({"query": queries, "item_id": items})
    frame = frame.with_columns(pl.Series(name, levels[:, at], pl.Float32) for at, name in enumerate(LEVEL_COLUMNS))
    frame.write_parquet(folder / "labels.parquet")
    return folder


def encoder(queries: Sequence[str], titles: Sequence[str]) -> np.ndarray:
    return levels_of(queries, [title.removeprefix("title ") for title in titles], 0.5)


def test_the_source_that_predicts_held_back_grades_better_is_first(tables: Tables, tmp_path: Path) -> None:
    worse = order_of_sources(tables, labels_with(tmp_path / "worse", 0.3, 0.97), encoder)
    assert worse["first"] == "encoder", "good labels of training queries do not count"
    assert worse["pairs"] == 2 * len(HELD_BACK)
    assert worse["teacher"]["nll"] == pytest.approx(-np.log(0.3), abs=1e-3)
    assert worse["encoder"]["nll"] == pytest.approx(-np.log(0.5), abs=1e-3)
    better = order_of_sources(tables, labels_with(tmp_path / "better", 0.7, 0.25), encoder)
    assert better["first"] == "teacher" and better["teacher"]["auc"] == 1.0


def test_the_weight_of_labels_is_the_share_of_held_back_grades_that_they_explain(
    tables: Tables, tmp_path: Path
) -> None:
    grades = [GRADES[query, item] for query in HELD_BACK for item in ITEMS]
    shares = np.bincount(grades) / len(grades)
    entropy = -(shares * np.log(shares)).sum()
    good = level_weights(order_of_sources(tables, labels_with(tmp_path / "good", 0.7, 0.25), encoder))
    assert good["judgment"] == 1.0 and good["encoder"] == ENCODER_WEIGHT < 0.1
    assert good["teacher"] == pytest.approx(1 + np.log(0.7) / entropy, abs=1e-3)
    # Labels that say less than the shares of the grades do.
    bad = level_weights(order_of_sources(tables, labels_with(tmp_path / "bad", 0.1, 0.97), encoder))
    assert bad["teacher"] == 0.0
    for unmeasured in ({"first": "teacher", "pairs": 0}, {"first": "encoder"}):
        assert level_weights(unmeasured)["teacher"] == UNMEASURED_WEIGHT


def test_with_few_judged_pairs_the_teacher_is_first(tables: Tables, tmp_path: Path) -> None:
    labels = labels_with(tmp_path / "labels", 0.3, 0.3)
    few = pl.read_parquet(labels / "labels.parquet").filter(pl.col("query").is_in(HELD_BACK[: LEAST_PAIRS // 2 - 1]))
    few.write_parquet(labels / "labels.parquet")
    assert order_of_sources(tables, labels, encoder) == {"first": "teacher", "pairs": 0}


def test_a_sample_of_many_pairs_is_measured(tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_PAIRS", 60)
    order = order_of_sources(tables, labels_with(tmp_path / "labels", 0.3, 0.3), encoder)
    assert order["pairs"] == 60 and order["first"] == "encoder"


def test_levels_of_the_first_source_are_used(tables: Tables, tmp_path: Path) -> None:
    labels = labels_with(tmp_path / "labels", 0.3, 0.3)
    judged = (pl.col("item_id") != "i2") & ~pl.col("query").is_in(HELD_BACK)
    for given, other in ((labels, "teacher"), (None, None)):
        pairs = pairs_to_score(tables, given, ScoreConfig())
        assert set(pairs.filter(judged)["source"]) == {"judgment"} and set(pairs.filter(~judged)["source"]) == {other}


@pytest.mark.parametrize("held_back", [False, True])
def test_who_sorts_by_the_levels_does_not_know_held_back_grades(
    tables: Tables, tmp_path: Path, held_back: bool
) -> None:
    """Labels that are right on training queries only: on held-back ones, the levels say grade 0 of each pair."""
    labels = labels_with(tmp_path / "labels", 0.97, 0.97)
    frame = pl.read_parquet(labels / "labels.parquet")
    ignorant = pl.col("query").is_in(HELD_BACK)
    levels = (pl.when(ignorant).then(pl.lit(0.25)).otherwise(pl.col(name)).alias(name) for name in LEVEL_COLUMNS)
    frame.with_columns(levels).write_parquet(labels / "labels.parquet")
    pairs = pairs_to_score(tables, labels, ScoreConfig(held_back_judgments=held_back)).filter(
        pl.col("query").is_in(HELD_BACK) & (pl.col("item_id") != "i2")
    )
    grade = np.array([GRADES[pair] for pair in pairs.select("query", "item_id").iter_rows()])
    expected = pairs.select(LEVEL_COLUMNS).to_numpy() @ np.arange(4)
    of_sort = ndcg(pairs["query"].rank("dense").to_numpy(), 2.0**grade - 1, expected, 1)
    assert of_sort == pytest.approx(1.0) if held_back else of_sort < 0.8
    assert set(pairs["source"]) == {"judgment" if held_back else "teacher"}

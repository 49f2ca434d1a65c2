"""A log without judgments: a teacher that needs no training labels it, and a student learns from the labels alone."""

from pathlib import Path

import polars as pl
import pytest

from prectr.core.artifacts import run_stage
from prectr.core.errors import UsageError
from prectr.data.judgments import read_judged, split_of
from prectr.data.marketplace import MarketplaceConfig, simulate
from prectr.data.tables import Tables
from prectr.evaluation.relevance_quality import relevance_quality
from prectr.relevance.distillation import distillation_pairs


@pytest.fixture(scope="module")
def unjudged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unjudged") / "tables"
    config = MarketplaceConfig(users=40, items=300, queries=40, requests=120, days=3)

    def build(staging: Path) -> dict[str, object]:
        simulate(config, staging)
        (staging / "judgments.parquet").unlink()
        return {}

    return run_stage("simulate", out, config=config, inputs={}, build=build).path


@pytest.fixture
def labels(unjudged: Path, tmp_path: Path) -> Path:
    from prectr.data.tables import Tables

    pairs = Tables(unjudged).impressions(columns=["query", "item_id"]).select("query", "item_id").unique()
    levels = {f"level_{level}": pl.lit(0.7 if level == 2 else 0.1, dtype=pl.Float32) for level in range(4)}
    pairs.with_columns(**levels).write_parquet(tmp_path / "labels.parquet")
    return tmp_path


def test_training_a_teacher_says_that_it_needs_judgments(unjudged: Path) -> None:
    with pytest.raises(UsageError, match=r"judgments\.parquet.*grade 0\.\.3"):
        read_judged(Tables(unjudged), required=True)
    assert read_judged(Tables(unjudged)).is_empty()


def test_the_student_validates_on_what_the_teacher_says_of_other_queries(unjudged: Path, labels: Path) -> None:
    pairs = distillation_pairs(Tables(unjudged), labels)
    training, validation = (pairs.filter(pl.col("split") == split) for split in ("train", "validation"))
    assert training["grade"].unique().to_list() == [-1]
    assert validation["grade"].unique().to_list() == [2]
    assert all(split_of(query) == "validation" for query in validation["query"])
    assert not pairs["query"].is_in([query for query in pairs["query"] if split_of(query) == "held-back"]).any()


def test_quality_has_nothing_to_compare_with(unjudged: Path, labels: Path) -> None:
    assert relevance_quality(Tables(unjudged), labels, None) == {"pairs": 0, "queries": 0, "grades": [0, 0, 0, 0]}

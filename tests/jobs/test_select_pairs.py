"""select-pairs as a stage: the artifact's counts agree with its rows, and only its own tables may use it."""

import polars as pl
import pytest

from jobs import select_pairs
from prectr.core.errors import UsageError
from prectr.data.tables import Tables
from prectr.labelling.config import SelectionConfig
from prectr.labelling.selection import read_selection
from tests.manifests import write_manifest


@pytest.fixture
def tables(tmp_path):
    path = tmp_path / "tables"
    queries, items = [f"query {number}" for number in range(30)], ["a", "b", "c"]
    rows = pl.DataFrame([(query, item) for query in queries for item in items], ["query", "item_id"], orient="row")
    day = path / "impressions" / "date=2026-01-01"
    day.mkdir(parents=True)
    rows.write_parquet(day / "part-0000.parquet")
    titles = ["one query", "One  Query", "another"]
    pl.DataFrame({"item_id": items, "title": titles}).write_parquet(path / "items.parquet")
    write_manifest(path, "simulate")
    return path


def test_the_manifest_counts_what_the_artifact_holds(tables, tmp_path, capsys):
    made = select_pairs.run(tables=tables, out=tmp_path / "selection", config=SelectionConfig(budget=40))
    pairs = read_selection(made.path, Tables(tables))
    assert made.manifest["rows"] == {"pairs": len(pairs), "questions": 40, "duplicates": len(pairs) - 40}
    cells = pl.DataFrame(made.manifest["cells"])
    assert cells["chosen"].sum() == 40 and cells["available"].sum() == 60
    chosen = pairs.group_by("origin", "stratum", "band").agg(found=pl.col("question").n_unique().cast(pl.Int64))
    both = cells.join(chosen, on=["origin", "stratum", "band"], how="left")
    assert both["chosen"].to_list() == both["found"].fill_null(0).to_list()
    assert sum(row["questions"] for row in made.manifest["pool"]) == 60
    printed = capsys.readouterr().err
    assert "exposed" in printed and "40 questions stand for" in printed
    assert select_pairs.run(tables=tables, out=tmp_path / "selection", config=SelectionConfig(budget=40)).skipped


def test_a_selection_of_other_tables_is_refused(tables, tmp_path):
    made = select_pairs.run(tables=tables, out=tmp_path / "selection", config=SelectionConfig(budget=40))
    pl.DataFrame({"item_id": ["a"], "title": ["changed"]}).write_parquet(tables / "items.parquet")
    with pytest.raises(UsageError, match="other tables"):
        read_selection(made.path, Tables(tables))


def test_nothing_is_published_where_nothing_can_be_chosen(tables, tmp_path):
    with pytest.raises(UsageError, match="budget is 0"):
        select_pairs.run(tables=tables, out=tmp_path / "selection", config=SelectionConfig(budget=0))
    items = pl.read_parquet(tables / "items.parquet")
    items.with_columns(item_id=pl.lit("z") + pl.col("item_id")).write_parquet(tables / "items.parquet")
    with pytest.raises(UsageError, match="no pair of a known item"):
        select_pairs.run(tables=tables, out=tmp_path / "selection", config=SelectionConfig())
    items.clear().write_parquet(tables / "items.parquet")
    with pytest.raises(UsageError, match="no items"):
        select_pairs.run(tables=tables, out=tmp_path / "selection", config=SelectionConfig())
    assert not (tmp_path / "selection").exists()

"""The label job on real Ray with the fallback engine: what the ledger holds is never asked again."""

import json

import polars as pl
import pytest

from jobs import label
from prectr.errors import PrectrError
from prectr.labelling import ledger as ledgers
from prectr.labelling.config import LabelConfig, TeacherConfig
from prectr.labelling.prompt import load_prompt
from prectr.labelling.teacher_model import new_model, train_bpe


@pytest.fixture
def workspace(tmp_path):
    tables, teacher = tmp_path / "tables", tmp_path / "teacher"
    day = tables / "impressions" / "date=2026-01-01"
    day.mkdir(parents=True)
    queries = [f"query {number}" for number in range(30)]
    pl.DataFrame({"query": queries, "item_id": ["a"] * 30}).write_parquet(day / "part-0000.parquet")
    judged = pl.DataFrame({"query": queries, "item_id": ["b"] * 30, "grade": [0, 1, 2] * 10})
    judged.with_columns(pl.col("grade").cast(pl.Int8)).write_parquet(tables / "judgments.parquet")
    items = pl.DataFrame({"item_id": ["a", "b"], "title": ["one title", "another"], "category": ["c", "c"]})
    items.write_parquet(tables / "items.parquet")
    (tables / "manifest.json").write_text(json.dumps({"stage": "simulate", "identity": "test"}))
    tokenizer = train_bpe([load_prompt("relevance_v1").text], 400, 192)
    tokenizer.save_pretrained(teacher)
    new_model(TeacherConfig(width=16, feed_forward=16), len(tokenizer), tokenizer.eos_token_id).save_pretrained(teacher)
    return tmp_path


@pytest.mark.slow
def test_a_failed_run_is_continued_and_a_larger_one_asks_only_for_the_rest(workspace, monkeypatch, ray_local):
    def run(budget):
        config = LabelConfig(budget=budget, engine="transformers", shard_rows=1, batch_size=1)
        return label.run(
            tables=workspace / "tables", teacher=workspace / "teacher", out=workspace / "labels", config=config
        ).manifest["rows"]

    append, shards = ledgers.LabelLedger.append, []

    def dies_after_the_first_shard(self, labels):
        if shards:
            raise PrectrError("killed")
        shards.append(len(labels))
        append(self, labels)

    monkeypatch.setattr(ledgers.LabelLedger, "append", dies_after_the_first_shard)
    with pytest.raises(PrectrError, match="killed"):
        run(20)
    assert not (workspace / "labels").exists()
    monkeypatch.setattr(ledgers.LabelLedger, "append", append)
    assert run(20) | {"labels": 20, "from_ledger": shards[0], "asked": 20 - shards[0]} == run(20)
    grown = run(30)
    assert (grown["from_ledger"], grown["asked"]) == (20, 10)
    labels = pl.read_parquet(workspace / "labels" / "labels.parquet")
    total = labels.select(pl.sum_horizontal(f"level_{level}" for level in range(4)))
    assert total.to_series().to_list() == pytest.approx([1.0] * 30, abs=1e-5)
    assert labels["expected"].is_between(0, 1).all()

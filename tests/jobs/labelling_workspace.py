"""A tiny log with judgments, and a tiny teacher, for the tests of labelling."""

from pathlib import Path

import polars as pl

from prectr.labelling.config import TeacherConfig
from prectr.labelling.prompt import load_prompt
from tests.manifests import write_manifest


def write_tables(tables: Path, queries: int = 30) -> None:
    """One exposed pair (item a) and one judged pair (item b) a query; as if `simulate` had written it."""
    day = tables / "impressions" / "date=2026-01-01"
    day.mkdir(parents=True)
    names = [f"query {number}" for number in range(queries)]
    pl.DataFrame({"query": names, "item_id": ["a"] * queries}).write_parquet(day / "part-0000.parquet")
    grades = pl.Series("grade", [number % 3 for number in range(queries)], dtype=pl.Int8)
    pl.DataFrame({"query": names, "item_id": ["b"] * queries, "grade": grades}).write_parquet(
        tables / "judgments.parquet"
    )
    items = pl.DataFrame({"item_id": ["a", "b"], "title": ["one title", "another"], "category": ["c", "c"]})
    items.write_parquet(tables / "items.parquet")
    write_manifest(tables, "simulate")


def write_teacher(teacher: Path, seed: int = 0) -> None:
    """A checkpoint with random weights that vLLM loads too (its attention wants heads of 32)."""
    import torch

    from prectr.labelling.own_teacher.model import new_model, train_bpe

    torch.manual_seed(seed)
    tokenizer = train_bpe([load_prompt("relevance_v1").prefix], 400, 192)
    tokenizer.save_pretrained(teacher)
    shape = TeacherConfig(width=32, heads=1, layers=1, feed_forward=32)
    new_model(shape, len(tokenizer), tokenizer.eos_token_id).save_pretrained(teacher)

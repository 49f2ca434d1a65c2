"""A rerun of `prectr label` with everything labelled: tables of as many distinct questions as wanted, a ledger that
answers them all, and the command timed from the start of its process to its end."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from _labelling_world import write_teacher
from _logs import SEED

from jobs import select_pairs
from jobs.label import with_keys
from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.artifacts import write_json
from prectr.core.schema_versions import SCHEMA_VERSIONS
from prectr.core.text import NORMAL_FORM
from prectr.data.tables import Tables
from prectr.labelling.config import LabelConfig, SelectionConfig, TeacherConfig
from prectr.labelling.ledger import LABELS, LabelLedger, new_run
from prectr.labelling.selection import read_selection
from prectr.labelling.teacher import prepare_teacher, template_for

ITEMS_A_QUERY = 50
JUDGED_QUERIES = 0.02
"""Share of the queries that have judged pairs; those of training queries are not asked, so there are more pairs."""
JUDGED_A_QUERY = 20
WORDS = 4000
SHARD_ROWS = 5000
CONFIG = LabelConfig(prompt="rubric_v1", max_length=640, engine="vllm", confirm_above=0)


def make_rerun(folder: Path, entries: int) -> None:
    """Tables, teacher, selection and ledger in `folder`, unless they are there.

    The folder holds `tables/`, `teacher/`, `labels-selection/` and `label-ledger/`, as they lie beside the artifact
    `labels/` of the command.
    """
    ready = folder / "ready"
    if ready.exists():
        return
    write_tables(folder / "tables", entries)
    items = Tables(folder / "tables").items()
    template = template_for(CONFIG.prompt, CONFIG.language, items["title"])
    write_teacher(folder / "teacher", template, items["title"].head(2000), TeacherConfig(max_length=CONFIG.max_length))
    selection = folder / "labels-selection"
    select_pairs.run(tables=folder / "tables", out=selection, config=SelectionConfig(budget=entries))
    teacher = prepare_teacher(folder / "teacher", CONFIG, template)
    keyed = with_keys(read_selection(selection, Tables(folder / "tables")), teacher).unique("key", maintain_order=True)
    if len(keyed) != entries:
        raise SystemExit(f"{len(keyed):,} distinct questions were selected, not {entries:,}")
    generator = np.random.default_rng(SEED)
    answered = generator.dirichlet(np.ones(len(LEVEL_COLUMNS)), entries).astype(np.float32)
    run = new_run()
    rows = keyed.select(
        "key",
        query="text_query",
        title="text_title",
        shown=pl.concat_str("text_category", "text_brand", separator=" | "),
        outside_mass=pl.lit(0.0, pl.Float32),
        engine=pl.lit("vllm"),
        run=pl.lit(run),
    ).with_columns(pl.Series(name, answered[:, level]) for level, name in enumerate(LEVEL_COLUMNS))
    rows = rows.select(list(LABELS)).sample(fraction=1.0, shuffle=True, seed=SEED)
    ledger = LabelLedger(folder / "label-ledger").context(teacher.context)
    for start in range(0, entries, SHARD_ROWS):
        ledger.append("labels", rows.slice(start, SHARD_ROWS))
    ledger.append("repeats", rows.sort("key").head(CONFIG.repeat_sample))
    ledger.record_run(run, {"engine": "vllm", "questions_per_second": 100.0, "first_answer_seconds": 10.0})
    ready.touch()


def write_tables(tables: Path, entries: int) -> None:
    """Canonical tables as if `simulate` had written them: half of the pairs shown one to three times, half candidates.

    Titles have eight words, queries three; no two of either are the same.
    """
    generator = np.random.default_rng(SEED)
    queries = round(entries / ITEMS_A_QUERY * (1 + JUDGED_QUERIES)) + 1
    items = max(ITEMS_A_QUERY, entries // 10)
    words = pl.Series(["".join(letters) for letters in generator.choice(list("abcdefghilmnoprstu"), (WORDS, 6))])
    frame = pl.DataFrame(
        {
            "item_id": [f"i{number}" for number in range(items)],
            "title": _phrases(words, generator.integers(0, WORDS, (items, 7))),
            "category": words.gather(generator.integers(0, 50, items)),
            "brand": words.gather(generator.integers(50, 500, items)),
        }
    )
    tables.mkdir(parents=True)
    frame.write_parquet(tables / "items.parquet")
    names = _phrases(words, generator.integers(0, WORDS, (queries, 2)))
    first = generator.integers(0, items, queries)[:, None]
    pairs = pl.DataFrame(
        {
            "query": names.gather(np.repeat(np.arange(queries), ITEMS_A_QUERY)),
            "item_id": frame["item_id"].gather(((first + np.arange(ITEMS_A_QUERY)) % items).ravel()),
            "place": np.tile(np.arange(ITEMS_A_QUERY), queries),
        }
    )
    shown = pairs.filter(pl.col("place") % 2 == 0)
    impressions = shown.select(pl.col("query", "item_id").repeat_by(1 + pl.col("place") % 3).explode())
    for table, rows in (("impressions", impressions), ("candidates", pairs.filter(pl.col("place") % 2 == 1))):
        (tables / table / "date=2026-01-01").mkdir(parents=True)
        rows.select("query", "item_id").write_parquet(tables / table / "date=2026-01-01" / "part-0000.parquet")
    judged = pairs.filter(
        pl.col("query").is_in(names.head(round(queries * JUDGED_QUERIES)).implode())
        & (pl.col("place") < JUDGED_A_QUERY)
    )
    grades = pl.Series("grade", generator.integers(0, 4, len(judged)), pl.Int8)
    judged.select("query", "item_id", grades).write_parquet(tables / "judgments.parquet")
    versions = {"schema": SCHEMA_VERSIONS["simulate"], "normal_form": NORMAL_FORM}
    manifest = {"stage": "simulate", "identity": f"benchmark-{entries}", **versions, "simulated": True}
    write_json(tables / "manifest.json", manifest)


def _phrases(words: pl.Series, places: np.ndarray) -> pl.Series:
    """Words of each row, and a last one that no other row has."""
    columns = [words.gather(column) for column in places.T] + [pl.Series([f"m{row}x" for row in range(len(places))])]
    return pl.DataFrame({str(number): column for number, column in enumerate(columns)}).select(
        pl.concat_str(pl.all(), separator=" ")
    )["0"]


def command(folder: Path, entries: int) -> list[str]:
    """Arguments of `python` for the rerun."""
    settings: dict[str, Any] = {"selection.budget": entries} | {
        f"label.{name}": getattr(CONFIG, name) for name in ("prompt", "max_length", "engine", "confirm_above")
    }
    assignments = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    paths = ["--tables", str(folder / "tables"), "--teacher", str(folder / "teacher"), "--out", str(folder / "labels")]
    return ["-m", "jobs", "label", *paths, *assignments, "--force"]

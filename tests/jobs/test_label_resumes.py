"""The label job on real Ray with the fallback engine: what the ledger holds is never asked again."""

import io

import polars as pl
import pytest

from jobs import label, ledger
from prectr.core.errors import PrectrError, UsageError
from prectr.labelling import ledger as ledgers
from prectr.labelling.config import LabelConfig, SelectionConfig
from tests.jobs.labelling_workspace import write_tables, write_teacher


@pytest.fixture
def workspace(tmp_path):
    write_tables(tmp_path / "tables")
    write_teacher(tmp_path / "teacher")
    return tmp_path


def run(workspace, budget, **options):
    settings = {"engine": "transformers", "shard_rows": 1, "batch_size": 5, "repeat_sample": 0}
    config = LabelConfig(**(settings | options.pop("config", {})))
    return label.run(
        tables=workspace / "tables",
        teacher=workspace / "teacher",
        out=workspace / "labels",
        config=config,
        selection=SelectionConfig(budget=budget),
        **options,
    ).manifest


def test_a_failed_run_is_continued_and_a_larger_one_asks_only_for_the_rest(workspace, monkeypatch, ray_local):
    append, shards = ledgers.ContextLedger.append, []

    def dies_after_the_first_shard(self, kind, rows):
        if shards:
            raise PrectrError("killed")
        shards.append(len(rows))
        append(self, kind, rows)

    monkeypatch.setattr(ledgers.ContextLedger, "append", dies_after_the_first_shard)
    with pytest.raises(PrectrError, match="killed"):
        run(workspace, 20)
    assert not (workspace / "labels").exists()
    monkeypatch.setattr(ledgers.ContextLedger, "append", append)
    first = run(workspace, 20)
    assert first["rows"] | {"labels": 20, "from_ledger": shards[0], "asked": 20 - shards[0]} == first["rows"]
    grown = run(workspace, 30)["rows"]
    assert (grown["from_ledger"], grown["asked"]) == (20, 10)
    labels = pl.read_parquet(workspace / "labels" / "labels.parquet")
    total = labels.select(pl.sum_horizontal(f"level_{level}" for level in range(4)))
    assert total.to_series().to_list() == pytest.approx([1.0] * 30, abs=1e-5)
    assert labels["expected"].is_between(0, 1).all()
    # Nothing is left to ask, so neither a model nor Ray is needed.
    monkeypatch.setattr(label, "ask", lambda *_: pytest.fail("asked again"))
    again = run(workspace, 30, force=True)
    assert again["rows"]["asked"] == 0
    counted = ledger.stats(workspace / "label-ledger")
    assert (counted["total"]["labels"], counted["total"]["errors"]) == (30, 0)


def test_repeats_are_asked_once_and_tell_how_often_labels_flip(workspace, ray_local):
    first = run(workspace, 20, config={"repeat_sample": 8, "batch_size": 4})
    assert first["run"]["asked"] == 28 and first["repeats"]["pairs"] == 8
    assert first["repeats"]["flipped"] == 0.0  # float noise does not turn a label of this model
    again = run(workspace, 20, config={"repeat_sample": 8, "batch_size": 4}, force=True)
    assert again["run"]["run"] == first["run"]["run"] and again["repeats"] == first["repeats"]


def test_a_large_run_wants_a_yes_and_asks_nothing_without(workspace, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(UsageError, match=r"20 questions are more than label\.confirm_above.*--yes"):
        run(workspace, 20, config={"confirm_above": 19})
    assert not (workspace / "labels").exists()


def test_a_changed_prompt_or_teacher_asks_anew_and_keeps_the_old_answers(workspace, ray_local):
    run(workspace, 20)
    assert run(workspace, 20, config={"language": "de", "max_length": 400})["rows"]["from_ledger"] == 0
    write_teacher(workspace / "teacher", seed=1)
    assert run(workspace, 20)["rows"]["from_ledger"] == 0
    assert [one["labels"] for one in ledger.stats(workspace / "label-ledger")["contexts"]] == [20, 20, 20]


@pytest.mark.parametrize(
    ("teacher", "told"),
    [("./missing", "no such directory; make one with `prectr train-teacher"), ("not/on-the-hub", "cannot be loaded")],
)
def test_a_teacher_that_is_not_there_is_told_before_anything_starts(workspace, teacher, told, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=told):
        label.run(
            tables=workspace / "tables", teacher=teacher, out=workspace / "labels", config=LabelConfig(),
            selection=SelectionConfig(budget=5),
        )  # fmt: skip

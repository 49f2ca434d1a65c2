import json
import multiprocessing
import time
from dataclasses import replace

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from prectr.core.errors import PrectrError, UsageError
from prectr.labelling.ledger import ERRORS, LABELS, Context, LabelLedger, model_fingerprint
from prectr.labelling.ledger_upkeep import chosen, drop, export, open_ledger, statistics, tidy, unused_since

CONTEXT = Context(
    prompt="relevance_v1.en-0123abcd", model="m1", decoding="next-token-softmax,bfloat16,192", teacher="t"
)


@pytest.fixture
def ledger(tmp_path):
    return LabelLedger(tmp_path / "ledger").context(CONTEXT)


def answers(keys, level=0.25, query="q"):
    return pl.DataFrame({"key": list(keys)}).with_columns(
        query=pl.lit(query), title=pl.lit("t"), shown=pl.lit(""), engine=pl.lit("vllm"), run=pl.lit("r"),
        outside_mass=pl.lit(0.1), **{f"level_{number}": pl.lit(level) for number in range(4)},
    )  # fmt: skip


def failures(keys, reason="too long"):
    return answers(keys).with_columns(error=pl.lit(reason)).select(list(ERRORS))


def keys_of(*keys):
    return pl.Series("key", list(keys), dtype=pl.String)


def test_a_key_hangs_on_every_text_and_on_prompt_model_and_decoding():
    texts = pl.DataFrame({"query": ["a", "a", "ab"], "title": ["b", "c", ""]})
    keys = CONTEXT.keys(texts)
    assert keys.n_unique() == 3 and all(len(key) == 32 for key in keys)
    assert CONTEXT.keys(texts).to_list() == keys.to_list()
    for change in ({"prompt": "other"}, {"model": "m2"}, {"decoding": "float32"}):
        changed = replace(CONTEXT, **change)
        assert not set(changed.keys(texts)) & set(keys) and changed.identity != CONTEXT.identity
    assert replace(CONTEXT, teacher="moved", prompt_text="as told").identity == CONTEXT.identity
    shown = texts.with_columns(category=pl.lit("phones"))
    assert not set(CONTEXT.keys(shown)) & set(keys)


def test_the_fingerprint_of_a_checkpoint_changes_with_its_files(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"one")
    before = model_fingerprint(str(tmp_path))
    (tmp_path / "curve.jsonl").write_text("no part of the model")
    assert model_fingerprint(str(tmp_path)) == before
    (tmp_path / "model.safetensors").write_bytes(b"two")
    assert model_fingerprint(str(tmp_path)) != before


def test_the_earliest_label_counts_and_the_latest_error_until_it_is_settled(ledger):
    ledger.append("labels", answers(["a", "b"], level=0.1))
    ledger.append("labels", answers(["b", "c"], level=0.9))
    found = ledger.labels(keys_of("b", "c", "unknown"))
    assert dict(found.select("key", "level_0").iter_rows()) == pytest.approx({"b": 0.1, "c": 0.9})
    assert found.schema == pl.Schema(LABELS)
    ledger.append("errors", failures(["x", "y"], "once"))
    ledger.append("errors", failures(["x"], "twice"))
    assert dict(ledger.errors(keys_of("x", "y")).select("key", "error").iter_rows()) == {"x": "twice", "y": "once"}
    ledger.append("labels", answers(["x"]))
    assert ledger.errors(keys_of("x", "y"))["key"].to_list() == ["y"]


def test_an_empty_ledger_knows_nothing(ledger):
    assert ledger.labels(keys_of("a")).is_empty() and ledger.answered_keys(keys_of("a")).is_empty()
    ledger.append("labels", answers([]))
    assert ledger.shards("labels") == []


def test_a_changed_prompt_has_its_own_folder_and_the_old_answers_stay(ledger):
    ledger.append("labels", answers(["a"]))
    root = LabelLedger(ledger.folder.parent)
    changed = root.context(replace(CONTEXT, prompt="relevance_v2"))
    changed.append("labels", answers(["b", "c"]))
    assert [one["labels"] for one in sorted(statistics(root), key=lambda one: one["prompt"])] == [1, 2]
    assert ledger.answered_keys(keys_of("a", "b")).to_list() == ["a"]


def test_a_damaged_shard_is_named(ledger):
    ledger.append("labels", answers(["a"]))
    ledger.append("labels", answers(["b"]))
    ledger.shards("labels")[1].write_bytes(b"PAR1 cut in half")
    with pytest.raises(PrectrError, match=f"{ledger.shards('labels')[1].name}: this shard .* delete it to have"):
        ledger.labels(keys_of("a"))


def test_tidying_loses_no_label_and_removes_only_what_is_settled(ledger):
    for number in range(5):
        ledger.append("labels", answers([f"k{number}", f"k{number + 1}"], level=number / 10))
    ledger.append("errors", failures(["k0", "lost"]))
    ledger.append("repeats", answers(["k0"]))
    wanted = keys_of(*[f"k{number}" for number in range(6)], "lost")
    before = ledger.labels(wanted).sort("key")
    done = tidy(ledger)
    assert (done.duplicate_rows, done.settled_errors, done.merged_shards) == (4, 1, 6)
    assert_frame_equal(ledger.labels(wanted).sort("key"), before)
    assert len(ledger.shards("labels")) == 1 and ledger.errors(wanted)["key"].to_list() == ["lost"]
    assert tidy(ledger).merged_shards == 0
    ledger.append("labels", answers(["k0"], level=0.7))
    assert ledger.labels(keys_of("k0"))["level_0"][0] == pytest.approx(0.0)
    tidy(ledger)
    assert ledger.labels(keys_of("k0"))["level_0"][0] == pytest.approx(0.0)


def test_a_tidying_that_was_killed_leaves_every_label_once(ledger, monkeypatch):
    for number in range(3):
        ledger.append("labels", answers([f"k{number}"], level=number / 10))
    monkeypatch.setattr("pathlib.Path.unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tidy(ledger)
    monkeypatch.undo()
    wanted = keys_of("k0", "k1", "k2")
    assert len(ledger.shards("labels")) == 4 and ledger.labels(wanted)["key"].sort().to_list() == wanted.to_list()
    assert tidy(ledger).duplicate_rows == 3
    assert ledger.labels(wanted).sort("key")["level_0"].to_list() == pytest.approx([0.0, 0.1, 0.2])


def test_reading_while_shards_are_merged_away_reads_again(ledger, monkeypatch):
    ledger.append("labels", answers(["a"]))
    ledger.append("labels", answers(["b"]))
    listed = ledger.shards("labels")
    tidy(ledger)
    fresh = type(ledger).shards
    lists = iter([listed])
    monkeypatch.setattr(type(ledger), "shards", lambda self, kind: next(lists, None) or fresh(self, kind))
    assert ledger.labels(keys_of("a", "b"))["key"].sort().to_list() == ["a", "b"]


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_export_holds_every_context(ledger, tmp_path, ending):
    ledger.append("labels", answers(["a", "b"], query='says "hello", twice'))
    ledger.append("labels", answers(["b"]))
    root = LabelLedger(ledger.folder.parent)
    root.context(replace(CONTEXT, prompt="relevance_v2")).append("labels", answers(["a"]))
    target = tmp_path / f"labels.{ending}"
    assert export(root, target) == 3
    read = {"parquet": pl.read_parquet, "csv": pl.read_csv, "jsonl": pl.read_ndjson}[ending](target)
    assert set(read.select("key", "prompt").iter_rows()) == {
        ("a", CONTEXT.prompt), ("b", CONTEXT.prompt), ("a", "relevance_v2")
    }  # fmt: skip
    assert read["query"].to_list().count('says "hello", twice') == 2
    assert export(root, target, "errors") == 0
    assert export(root, target, contexts=[CONTEXT.identity[:6]]) == 2
    with pytest.raises(UsageError, match="must end in"):
        export(root, tmp_path / "labels.pickle")


def test_contexts_are_dropped_by_name_or_when_unused(ledger):
    root = LabelLedger(ledger.folder.parent)
    ledger.append("labels", answers(["a"]))
    other = root.context(replace(CONTEXT, model="m2"))
    other.record_run("20200101T000000-old", {"questions_per_second": 3.0})
    ledger.record_run("29990101T000000-new", {})
    assert [context.folder for context in unused_since(root, 30)] == [other.folder]
    with pytest.raises(UsageError, match="matches 2 of"):
        chosen(root, [""])
    assert drop(ledger) == 1
    assert [context.folder for context in root.contexts()] == [other.folder]
    drop(other)
    with pytest.raises(UsageError, match="no label ledger here"):
        open_ledger(ledger.folder.parent)


def _write_while_locked(folder, ready, numbers):
    context = LabelLedger(folder).context(CONTEXT)
    with context.writing():
        ready.put(True)
        known = set(context.answered_keys(keys_of(*numbers)))
        time.sleep(0.3)
        context.append("labels", answers([number for number in numbers if number not in known]))


def test_two_writers_take_turns_and_nothing_is_asked_twice(tmp_path):
    folder, processes = tmp_path / "ledger", multiprocessing.get_context("spawn")
    ready = processes.Queue()
    numbers = [str(number) for number in range(50)]
    writers = [processes.Process(target=_write_while_locked, args=(folder, ready, numbers)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    context = LabelLedger(folder).context(CONTEXT)
    assert len(context.shards("labels")) == 1 and statistics(LabelLedger(folder))[0]["labels"] == 50


def test_a_killed_writer_gives_its_right_up(tmp_path):
    folder, processes = tmp_path / "ledger", multiprocessing.get_context("spawn")
    ready = processes.Queue()
    writer = processes.Process(target=_hold, args=(folder, ready))
    writer.start()
    ready.get(timeout=60)
    writer.kill()
    writer.join()
    with LabelLedger(folder).context(CONTEXT).writing():
        pass


def _hold(folder, ready):
    with LabelLedger(folder).context(CONTEXT).writing():
        ready.put(True)
        time.sleep(600)


def test_a_broken_context_file_is_named(ledger):
    (ledger.folder / "context.json").write_text("{")
    with pytest.raises(PrectrError, match=r"context\.json: cannot be read"):
        statistics(LabelLedger(ledger.folder.parent))


def test_records_of_runs_come_in_order_and_a_cut_one_is_left_out(ledger):
    ledger.record_run("20260101T000000-b", {"answered": 1})
    ledger.record_run("20250101T000000-a", {"answered": 2})
    (ledger.folder / "runs" / "20260601T000000-c.json").write_text(json.dumps({"a": 1})[:3])
    assert [run["answered"] for run in ledger.runs()] == [2, 1]

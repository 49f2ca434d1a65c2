import polars as pl

from prectr.labelling.ledger import SCHEMA, LabelLedger, label_keys, model_fingerprint


def labels(keys):
    values = {"key": keys, "query": ["q"] * len(keys), "title": ["t"] * len(keys), "engine": ["test"] * len(keys)}
    return pl.DataFrame(values | {name: [0.2] * len(keys) for name, kind in SCHEMA.items() if kind == pl.Float32})


def test_what_was_appended_is_known_to_the_next_run(tmp_path):
    LabelLedger(tmp_path).append(labels(["a", "b"]))
    LabelLedger(tmp_path).append(labels(["b", "c"]))
    known = LabelLedger(tmp_path).read(pl.Series(["b", "c", "d"]))
    assert sorted(known["key"]) == ["b", "c"]


def test_a_half_written_shard_is_not_read(tmp_path):
    ledger = LabelLedger(tmp_path)
    ledger.append(labels(["a"]))
    (tmp_path / ".shard-x.parquet.part").write_bytes(b"broken")
    assert ledger.read(pl.Series(["a"]))["key"].to_list() == ["a"]


def test_a_key_depends_on_query_title_and_context():
    keys = {label_keys([query], [title], context)[0] for query in "ab" for title in "cd" for context in "ef"}
    assert len(keys) == 8


def test_a_teacher_that_changed_has_another_fingerprint(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"one")
    before = model_fingerprint(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"two")
    assert model_fingerprint(str(tmp_path)) != before
    assert model_fingerprint("org/model") == "org/model"

"""The train-teacher job on tiny tables: what it leaves, what it refuses, and that two workers learn what one does."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, T5Config

from jobs import train_teacher
from prectr.core import ray_train as launch
from prectr.core.errors import PrectrError, UsageError
from prectr.core.ray_session import RayConfig
from prectr.labelling.config import TeacherConfig
from prectr.labelling.own_teacher.model import train_bpe
from prectr.labelling.prompt import load_prompt
from tests.manifests import write_manifest

FRESH = TeacherConfig(
    width=16, feed_forward=16, vocabulary=400, epochs=2, batch_size=16, warm_start_pairs=20, max_length=160, cpus=1
)
CONTEXT = 200


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    path = tmp_path / "tables"
    day = path / "impressions" / "date=2026-01-01"
    day.mkdir(parents=True)
    pl.DataFrame({"query": ["red shoe"], "item_id": ["i0"]}).write_parquet(day / "part-0000.parquet")
    colours, things = ["red", "blue", "green", "grey"], ["shoe", "lamp", "sofa", "phone", "chair"]
    titles = [f"{colour} {thing}" for colour in colours for thing in things]
    items = {"item_id": [f"i{place}" for place in range(20)], "title": titles, "category": things * 4}
    pl.DataFrame(items).with_columns(brand=pl.lit("acme")).write_parquet(path / "items.parquet")
    judged = [
        (query, f"i{place}", 3 * (title == query) + (title != query) * len(set(title.split()) & set(query.split())))
        for query in titles
        for place, title in enumerate(titles[:8])
    ]
    judgments = pl.DataFrame(judged, schema=["query", "item_id", "grade"], orient="row")
    judgments.with_columns(pl.col("grade").cast(pl.Int8)).write_parquet(path / "judgments.parquet")
    write_manifest(path, "simulate")
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A GPT-2 with a tokenizer that knows the digits."""
    path = tmp_path / "base"
    tokenizer = train_bpe([load_prompt("relevance_v1").text, "red blue shoe lamp 0 1 2 3"] * 9, 400, 192)
    tokenizer.save_pretrained(path)
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=CONTEXT, n_embd=16, n_layer=1, n_head=2, embd_pdrop=0.0, resid_pdrop=0.0,
        attn_pdrop=0.0, **ends,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(path)
    return path


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The loop in this process instead of Ray; counts how often."""
    calls = SimpleNamespace(count=0)

    def fit(loop: Any, loop_config: dict[str, Any], **_: Any) -> Any:
        calls.count += 1
        return loop(loop_config)

    monkeypatch.setattr(launch, "fit_on_ray", fit)
    monkeypatch.setattr(train_teacher, "ray_session", lambda _: nullcontext())
    monkeypatch.setattr(train_teacher, "require_resources", lambda *_, **__: None)
    return calls


def test_a_fresh_teacher_is_an_ordinary_checkpoint(tables: Path, tmp_path: Path, in_process: SimpleNamespace) -> None:
    out = tmp_path / "teacher"
    manifest = train_teacher.run(tables=tables, out=out, config=FRESH).manifest
    assert (manifest["language"], manifest["lora"]) == ("en", None)
    assert manifest["prompt"].startswith("relevance_v1.en-")
    assert manifest["rows"]["warm_start"] == 20 and manifest["rows"]["too_long"] == 0
    facts = manifest["metrics"]
    assert facts["parameters"] == facts["trained_parameters"] and facts["shared_prefix_tokens"] > 10
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert [tokenizer.decode([token]) for token in manifest["labels"].values()] == ["0", "1", "2", "3"]
    assert AutoModelForCausalLM.from_pretrained(out).num_parameters() == facts["parameters"]
    assert not [file.name for file in out.iterdir() if file.name.startswith(".")], "nothing of the training is left"
    assert train_teacher.run(tables=tables, out=out, config=FRESH).skipped and in_process.count == 1


def test_a_changed_base_model_is_trained_again(
    tables: Path, base: Path, tmp_path: Path, in_process: SimpleNamespace
) -> None:
    config = FRESH.model_copy(update={"base_model": str(base), "prompt": "rubric_v1", "max_length": 199, "epochs": 1})
    with pytest.raises(UsageError, match=r"teacher.max_length 199: too short for [\d,]+ of"):
        train_teacher.run(tables=tables, out=tmp_path / "teacher", config=config)
    config = config.model_copy(update={"prompt": "relevance_v1"})
    assert not train_teacher.run(tables=tables, out=tmp_path / "teacher", config=config).skipped
    assert train_teacher.run(tables=tables, out=tmp_path / "teacher", config=config).skipped
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.transformer.wte.weight[0] += 1
    model.save_pretrained(base)
    assert not train_teacher.run(tables=tables, out=tmp_path / "teacher", config=config).skipped


def test_unfit_bases_are_refused_before_anything_starts(
    tables: Path, base: Path, tmp_path: Path, in_process: SimpleNamespace
) -> None:
    def refusal(model: str | Path, **changes: Any) -> str:
        config = FRESH.model_copy(update={"base_model": str(model), **changes})
        with pytest.raises(UsageError) as caught:
            train_teacher.run(tables=tables, out=tmp_path / "teacher", config=config)
        return str(caught.value)

    assert "no such directory" in refusal(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "cannot be loaded" in refusal(tmp_path / "empty")
    T5Config().save_pretrained(tmp_path / "t5")
    assert "a t5 is no causal language model" in refusal(tmp_path / "t5")
    assert f"reads at most {CONTEXT} tokens" in refusal(base, max_length=CONTEXT)
    without_two = AutoTokenizer.from_pretrained(base).backend_tokenizer.to_str().replace('"2":', '"two":')
    (base / "tokenizer.json").write_text(without_two)
    assert "label '2' of prompt relevance_v1.en is not one token" in refusal(base)
    assert in_process.count == 0


def test_two_workers_learn_what_one_does(
    tables: Path, base: Path, tmp_path: Path, ray_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapters, batches that leave one worker without a row, micro-batches."""
    config = FRESH.model_copy(
        update={"base_model": str(base), "lora_rank": 4, "batch_size": 7, "accumulate": 2, "learning_rate": 0.01}
    )
    pair = train_teacher.run(
        tables=tables, out=tmp_path / "pair", config=config.model_copy(update={"workers": 2}), ray_config=RayConfig()
    )
    with monkeypatch.context() as patched:
        patched.setattr(launch, "fit_on_ray", lambda loop, loop_config, **_: loop(loop_config))
        alone = train_teacher.run(tables=tables, out=tmp_path / "alone", config=config)

    curves = [launch.read_curve(result.path / "curve.jsonl") for result in (pair, alone)]
    assert len(curves[0]) == len(curves[1]) == 3
    for point, expected in zip(*curves, strict=True):
        for name in ("train_loss", "validation_loss", "validation_accuracy"):
            assert point[name] == pytest.approx(expected[name], abs=1e-4), name
    before, after = load_file(base / "model.safetensors"), load_file(pair.path / "model.safetensors")
    assert after.keys() == before.keys()
    assert any(not torch.equal(after[name], before[name]) for name in before)
    lora = pair.manifest["lora"]
    assert lora == {"rank": 4, "alpha": 16.0, "targets": "all linear"}
    assert pair.manifest["metrics"]["trained_parameters"] < pair.manifest["metrics"]["parameters"]
    with pytest.raises(UsageError, match=r"teacher.workers 1 with teacher.gpus 99 each: Ray has \d GPUs here"):
        train_teacher.run(tables=tables, out=tmp_path / "large", config=config.model_copy(update={"gpus": 99}))


def test_too_few_judgments_are_told(tables: Path, tmp_path: Path) -> None:
    pl.read_parquet(tables / "judgments.parquet").head(8).write_parquet(tables / "judgments.parquet")
    with pytest.raises(PrectrError, match="too few to give both a training and a validation split"):
        train_teacher.run(tables=tables, out=tmp_path / "teacher", config=FRESH)

"""The teacher's training loop as the only worker and without Ray: any causal model, all weights or adapters."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from prectr.core.errors import PrectrError, UsageError
from prectr.core.ray_train import read_curve
from prectr.labelling.config import TeacherConfig
from prectr.labelling.own_teacher.data import VALIDATION, TeacherData, save_prompts
from prectr.labelling.own_teacher.model import new_model
from prectr.labelling.own_teacher.training import train_teacher_loop

SMALL = TeacherConfig(epochs=3, batch_size=8, learning_rate=0.01, token_dropout=0.2, precision="float32")
LABELS = [2, 3, 4, 5]
ENDS = {"bos_token_id": 0, "eos_token_id": 0}
MODELS: dict[str, Callable[[], Any]] = {
    "qwen2": lambda: new_model(TeacherConfig(width=16, layers=2, heads=2, feed_forward=32), 40, 0),
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=64, **ENDS,
        )
    ),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=40, n_positions=64, n_embd=16, n_layer=2, n_head=2, embd_pdrop=0.0, resid_pdrop=0.0,
            attn_pdrop=0.0, **ENDS,
        )
    ),
    "mamba": lambda: MambaForCausalLM(MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, **ENDS)),
    "bert": lambda: BertLMHeadModel(
        BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    ),
}  # fmt: skip


def base_model(name: str) -> Any:
    """Matrices ten times larger than a fresh model's: beneath adapters, a frozen output layer must be able to speak."""
    torch.manual_seed(3)
    model = MODELS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter *= 10
    return model


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., SimpleNamespace]:
    """Train one of MODELS on prompts whose grade is told by one token."""
    rng = np.random.default_rng(0)
    grades = rng.integers(0, 4, 60)
    middles = [[*rng.integers(20, 40, rng.integers(1, 6)), 10 + grade] for grade in grades]
    prompts = [[6, 7, 8, 9, *rng.permutation(middle).tolist(), 19] for middle in middles]
    save_prompts(tmp_path / "prompts.npz", prompts, grades, np.repeat([0, 1, 2], [10, 40, 10]))
    runs = iter(range(100))

    def run(name: str = "qwen2", stored: torch.dtype = torch.float32, **changes: Any) -> SimpleNamespace:
        base, out = tmp_path / f"base-{name}-{stored}", tmp_path / f"run-{next(runs)}"
        base_model(name).to(stored).save_pretrained(base)
        out.mkdir()
        config = {
            "teacher": SMALL.model_copy(update=changes).model_dump(mode="json"),
            "data": str(tmp_path / "prompts.npz"),
            "label_tokens": LABELS,
            "blank": 0,
            "model": str(base),
            "out": str(out),
            "curve": str(out / "curve.jsonl"),
        }
        facts = train_teacher_loop(config)
        return SimpleNamespace(facts=facts, curve=read_curve(out / "curve.jsonl"), base=base, out=out)

    return run


def losses(result: SimpleNamespace) -> list[float]:
    return [point[kind] for point in result.curve for kind in ("train_loss", "validation_loss")]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("name", ["qwen2", "llama", "gpt2"])
@pytest.mark.parametrize("rank", [0, 4])
def test_any_causal_model_learns_with_all_weights_or_adapters(train, name: str, rank: int) -> None:
    result = train(name, lora_rank=rank, learning_rate=0.03 if rank else 0.01)
    validation = [point["validation_loss"] for point in result.curve]
    assert len(validation) == 4 and validation[-1] < 0.9 * validation[0]
    assert result.facts["shared_prefix_tokens"] == 4
    assert result.facts["parameters"] == AutoModelForCausalLM.from_pretrained(result.base).num_parameters()
    before, after = weights(result.base), weights(result.out)
    assert {name: value.shape for name, value in after.items()} == {name: value.shape for name, value in before.items()}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    if rank:
        assert result.facts["trained_parameters"] < result.facts["parameters"]
        assert changed and all(before[name].ndim == 2 for name in changed)
        assert not any("embed" in name or "wte" in name or "wpe" in name or "head" in name for name in changed)
    else:
        assert result.facts["trained_parameters"] == result.facts["parameters"]
        assert changed == set(before)
    assert {file.name for file in result.out.iterdir()} == {
        "config.json", "curve.jsonl", "generation_config.json", "model.safetensors",
    }  # fmt: skip


def test_whole_prompts_micro_batches_and_recomputed_activations_change_no_loss(train) -> None:
    plain = train()
    for changes in ({"accumulate": 3}, {"checkpoint_activations": True}):
        other = train(**changes)
        assert losses(other) == pytest.approx(losses(plain), abs=1e-4)
        assert other.facts["shared_prefix_tokens"] == (4 if "accumulate" in changes else 0)


def test_a_model_without_a_cache_trains_on_whole_prompts(train) -> None:
    result = train("mamba", epochs=3)
    assert result.facts["shared_prefix_tokens"] == 0
    assert result.curve[-1]["validation_loss"] < result.curve[0]["validation_loss"]


@pytest.mark.parametrize("rank", [0, 4])
def test_the_checkpoint_is_the_best_epoch(train, tmp_path: Path, rank: int) -> None:
    result = train(lora_rank=rank, epochs=8, patience=2, learning_rate=0.3, warm_up=0.0)
    validation = [point["validation_loss"] for point in result.curve]
    best = int(np.argmin(validation))
    assert result.facts["best_epoch"] == best and len(validation) == best + 1 + 2 < 9, "patience stops it"
    model = AutoModelForCausalLM.from_pretrained(result.out).eval()
    data = TeacherData.load(tmp_path / "prompts.npz")
    with torch.inference_mode():
        measured = [
            torch.nn.functional.cross_entropy(
                model(torch.from_numpy(np.append(data.prefix, data.suffixes[row]))[None]).logits[0, -1],
                torch.tensor(LABELS[data.grades[row]]),
            ).item()
            for row in data.rows(VALIDATION)
        ]
    assert np.mean(measured) == pytest.approx(validation[best], abs=1e-4)


@pytest.mark.parametrize("rank", [0, 4])
def test_the_checkpoint_has_the_type_of_the_base(train, rank: int) -> None:
    result = train(stored=torch.bfloat16, lora_rank=rank, epochs=1)
    assert {value.dtype for value in weights(result.out).values()} == {torch.bfloat16}
    assert AutoModelForCausalLM.from_pretrained(result.out, dtype="auto").dtype == torch.bfloat16


def test_chosen_layers_alone_are_adapted(train) -> None:
    result = train(lora_rank=2, lora_targets=["q_proj", "mlp.down_proj"], epochs=1)
    before, after = weights(result.base), weights(result.out)
    changed = {name.split(".", 3)[3] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"self_attn.q_proj.weight", "mlp.down_proj.weight"}
    with pytest.raises(UsageError, match=r"no linear layer 'query'; it has down_proj, gate_proj, k_proj"):
        train(lora_rank=2, lora_targets=["q_proj", "query"])


def test_a_loss_that_explodes_names_the_epoch(train) -> None:
    with pytest.raises(PrectrError, match=r"no longer a number in epoch \d; lower teacher\.learning_rate \(1e\+30 now"):
        train(learning_rate=1e30, warm_up=0.0)


def test_an_encoder_is_refused(train) -> None:
    with pytest.raises(UsageError, match="a bert is no causal language model"):
        train("bert")

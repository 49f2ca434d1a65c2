"""The forward pass of training, against each model's own forward on whole prompts."""

from types import SimpleNamespace

import pytest
import torch
from transformers import (
    BertConfig,
    BertLMHeadModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from prectr.labelling.own_teacher.logits import can_share_prefix, last_logits, reads_ahead

ENDS = {"bos_token_id": 0, "eos_token_id": 0}
SHAPE = {
    "vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, **ENDS,
}  # fmt: skip


def tiny_model(name):
    """Weights ten times larger than a fresh model's, so that the prefix matters."""
    torch.manual_seed(0)
    models = {
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
        "gpt2": lambda: GPT2LMHeadModel(
            GPT2Config(vocab_size=50, n_positions=64, n_embd=16, n_layer=2, n_head=2, **ENDS)
        ),
        # Caps its logits after the output layer, and every other layer sees four tokens only.
        "gemma2": lambda: Gemma2ForCausalLM(
            Gemma2Config(**SHAPE, head_dim=8, sliding_window=4, final_logit_softcapping=0.5)
        ),
        "mamba": lambda: MambaForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, **ENDS)),
        "bert": lambda: BertLMHeadModel(
            BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
        ),
    }
    model = models[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter *= 10
    return model


@pytest.fixture
def prompts():
    torch.manual_seed(1)
    return SimpleNamespace(
        prefix=torch.randint(1, 50, (7,)), suffix=torch.randint(1, 50, (3, 5)), lengths=torch.tensor([5, 2, 4])
    )


def whole_prompts(model, prompts):
    """The model's own logits, one prompt at a time and nothing padded."""
    rows = [
        model(input_ids=torch.cat([prompts.prefix, suffix[:length]])[None]).logits[0, -1]
        for suffix, length in zip(prompts.suffix, prompts.lengths, strict=True)
    ]
    return torch.stack(rows)


@pytest.mark.parametrize("name", ["qwen2", "llama", "gpt2", "gemma2"])
def test_a_shared_prefix_gives_the_logits_of_the_whole_prompts(name, prompts):
    model = tiny_model(name)
    expected = whole_prompts(model, prompts)
    assert expected.std() > 0.05
    assert can_share_prefix(model, **vars(prompts))
    for share in (True, False):
        found = last_logits(model, **vars(prompts), share_prefix=share)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    empty = SimpleNamespace(**{**vars(prompts), "prefix": prompts.prefix[:0]})
    torch.testing.assert_close(last_logits(model, **vars(empty)), whole_prompts(model, empty), atol=1e-4, rtol=0)


def test_the_shared_prefix_is_trained_too(prompts):
    model = tiny_model("qwen2")
    gradients = []
    for share in (True, False):
        model.zero_grad()
        last_logits(model, **vars(prompts), share_prefix=share).square().sum().backward()
        gradients.append(model.model.embed_tokens.weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-3, rtol=1e-3)
    assert gradients[0][prompts.prefix].abs().sum() > 0


def test_a_model_without_a_growing_cache_is_given_whole_prompts(prompts):
    model = tiny_model("mamba")
    assert not can_share_prefix(model, **vars(prompts))
    found = last_logits(model, **vars(prompts), share_prefix=False)
    torch.testing.assert_close(found, whole_prompts(model, prompts), atol=1e-4, rtol=0)


def test_a_cache_that_forgets_is_noticed(prompts, monkeypatch):
    model = tiny_model("llama").train()
    monkeypatch.setattr("transformers.DynamicCache.batch_repeat_interleave", lambda self, rows: self.layers.clear())
    assert not can_share_prefix(model, **vars(prompts))
    assert model.training, "the check leaves the model as it was"


@pytest.mark.parametrize(("name", "ahead"), [("qwen2", False), ("gpt2", False), ("mamba", False), ("bert", True)])
def test_an_encoder_is_told_from_a_causal_model(name, ahead, prompts):
    assert reads_ahead(tiny_model(name), prompts.prefix) is ahead

"""The forward pass of training: next-token logits after each prompt, from any Hugging Face causal language model.

Under causal attention the keys and values of the prompts' shared prefix depend on nothing later. So they are computed
once a batch and shared: exactly what a prefix cache does when the engine answers, and exact in training. Whether a
model can do it is measured, not guessed from its name; one that cannot gets whole prompts. No loss and no Ray here.
"""

from typing import Any


def last_logits(model: Any, prefix: Any, suffix: Any, lengths: Any, *, share_prefix: bool = True) -> Any:
    """Next-token logits after each prompt `prefix + suffix[row, :lengths[row]]`.

    Args:
        model: a Hugging Face causal language model.
        prefix: int64 [S], the shared leading tokens, S >= 0.
        suffix: int64 [B, L], padded on the right; under causal attention no real token sees the padding.
        lengths: int64 [B], at least 1.
        share_prefix: compute the prefix once, not once a row; needs a model for which `can_share_prefix` holds.

    Returns:
        float [B, vocabulary].
    """
    import torch
    from transformers import DynamicCache

    rows = len(suffix)
    if not share_prefix or not len(prefix):
        whole = torch.cat([prefix.expand(rows, -1), suffix], dim=1)
        return logits_at(model, whole, lengths + len(prefix) - 1, use_cache=False)
    cache = DynamicCache()
    model.base_model(input_ids=prefix[None], past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(rows)
    return logits_at(model, suffix, lengths - 1, past_key_values=cache, use_cache=True)


def can_share_prefix(model: Any, prefix: Any, suffix: Any, lengths: Any) -> bool:
    """Whether the shared prefix gives this model the logits of the whole prompts; tried on the given ones.

    Models without a growing key-value cache (recurrent ones, some hybrids) fail or silently forget the prefix.
    """
    import torch

    if not len(prefix):
        return False
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            whole = last_logits(model, prefix, suffix, lengths, share_prefix=False).float()
            shared = last_logits(model, prefix, suffix, lengths).float()
    except Exception:  # whatever a model says against being given a cache, whole prompts are the answer
        return False
    finally:
        model.train(training)
    return _same(shared, whole, model.dtype)


def reads_ahead(model: Any, tokens: Any) -> bool:
    """Whether a token's logits depend on later tokens, so that the model is no causal one (an encoder, say BERT).

    Args:
        model: a Hugging Face model with a language-model head.
        tokens: int64 [L], L >= 2.
    """
    import torch

    training = model.training
    model.eval()
    with torch.inference_mode():
        first = torch.zeros(1, dtype=torch.int64, device=tokens.device)
        alone = logits_at(model, tokens[None, :1], first, use_cache=False).float()
        followed = logits_at(model, tokens[None], first, use_cache=False).float()
    model.train(training)
    return not _same(alone, followed, model.dtype)


def logits_at(model: Any, ids: Any, places: Any, **arguments: Any) -> Any:
    """Logits [B, vocabulary] of one place a row; the output layer sees that place alone.

    The model's own forward is called, and not its layers one by one, because some models scale or cap their logits.
    """
    import torch

    rows = torch.arange(len(ids), device=ids.device)

    def only_those(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (given[0][rows, places][:, None], *given[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(only_those)
    try:
        logits = model(input_ids=ids, **arguments).logits
    finally:
        hook.remove()
    # A model that multiplies by the output layer's weights itself never calls the layer, nor the hook.
    return logits[:, 0] if logits.shape[1] == 1 else logits[rows, places]


def _same(found: Any, expected: Any, data_type: Any) -> bool:
    """Whether logits differ by rounding only; what a model attends to moves them by far more."""
    import torch

    tolerance = 1e-3 if data_type == torch.float32 else 0.05
    return bool((found - expected).abs().max() <= tolerance * expected.std())

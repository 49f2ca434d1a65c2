"""Forward pass of training: next-token logits after each prompt, from any Hugging Face causal language model.

Under causal attention the keys and values of the prompts' shared prefix depend on no later token. So they are computed
once per batch and shared, as an engine's prefix cache does; the result is exact. Whether a model supports this is
measured and not guessed from its name; other models get whole prompts. This module computes no loss and uses no Ray.
"""

from typing import Any


def last_logits(model: Any, prefix: Any, suffix: Any, lengths: Any, *, share_prefix: bool = True) -> Any:
    """Compute the next-token logits after each prompt `prefix + suffix[row, :lengths[row]]`.

    Args:
        model: a Hugging Face causal language model.
        prefix: int64 [S], the first tokens that all prompts share, S >= 0.
        suffix: int64 [B, L], padded on the right; under causal attention no real token sees the padding.
        lengths: int64 [B], at least 1.
        share_prefix: compute the prefix once per batch, not once per row; needs a model that `can_share_prefix`
            accepts.

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
    """Whether the model gives the same logits with a shared prefix as with whole prompts, measured on these prompts.

    Models without a growing key-value cache (recurrent models, some hybrids) fail or silently forget the prefix.
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
    except Exception:  # a model may refuse a cache with any error; whole prompts always work
        return False
    finally:
        model.train(training)
    return _equal_logits(shared, whole, model.dtype)


def reads_ahead(model: Any, tokens: Any) -> bool:
    """Whether a token's logits depend on later tokens, as in an encoder such as BERT; the model is then not causal.

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
    return not _equal_logits(alone, followed, model.dtype)


def logits_at(model: Any, ids: Any, positions: Any, **arguments: Any) -> Any:
    """Compute the logits [B, vocabulary] at one position per row. The output layer gets only these positions.

    This calls the model's forward and not its layers one by one, because some models scale or cap their logits.
    """
    import torch

    rows = torch.arange(len(ids), device=ids.device)

    def select_positions(_: Any, layer_inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (layer_inputs[0][rows, positions][:, None], *layer_inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(select_positions)
    try:
        logits = model(input_ids=ids, **arguments).logits
    finally:
        hook.remove()
    # A model that multiplies by the output layer's weights directly calls neither the layer nor the hook.
    return logits[:, 0] if logits.shape[1] == 1 else logits[rows, positions]


def _equal_logits(logits: Any, expected: Any, data_type: Any) -> bool:
    """Whether logits differ by rounding only. Other inputs change them far more."""
    import torch

    tolerance = 1e-3 if data_type == torch.float32 else 0.05
    return bool((logits - expected).abs().max() <= tolerance * expected.std())

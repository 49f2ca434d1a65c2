"""LoRA adapters of the teacher, through `peft`: put in before training, merged into the weights after it.

    W' = W + (alpha / rank) B A,    A [rank, in] random, B [out, rank] zero at the start        [LoRA, ICLR 2022]

The merged model is the base's own class with the base's own tensor names: nothing of `peft` is left in a checkpoint.
"""

from collections.abc import Sequence
from typing import Any

from prectr.core.errors import UsageError


def add_adapters(model: Any, rank: int, alpha: float, targets: Sequence[str] | None) -> Any:
    """Freeze `model`, adapt its linear layers in place, and return peft's view of it, for `merge_and_unload`.

    Args:
        model: a Hugging Face causal language model; it stays the object to call.
        rank: of the adapters, at least 1.
        alpha: their scale times `rank`.
        targets: names, or ends of names, of the linear layers to adapt; None: all but the output.

    Raises:
        UsageError: a target names no linear layer; the message lists those that there are.
    """
    from peft import LoraConfig, get_peft_model

    layers = linear_layers(model)
    for target in targets or ():
        if not any(layer == target or layer.endswith(f".{target}") for layer in layers):
            known = ", ".join(sorted({layer.rsplit(".", 1)[-1] for layer in layers}))
            raise UsageError(f"teacher.lora_targets: the base model has no linear layer '{target}'; it has {known}.")
    return get_peft_model(
        model,
        LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules=list(targets) if targets else "all-linear",
            task_type="CAUSAL_LM",
        ),
    )


def linear_layers(model: Any) -> list[str]:
    """Full names of a model's linear layers, the output layer left out."""
    import torch
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer

    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    ]

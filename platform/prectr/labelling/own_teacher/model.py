"""The teacher's model and tokenizer: an ordinary Hugging Face causal language model, from scratch or from a checkpoint.

From scratch it is a small Qwen2 with a byte-level BPE tokenizer, which every engine for Qwen2 can serve. Else it is a
checkpoint of any causal architecture, optionally with LoRA adapters. This module trains nothing and uses no Ray.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from prectr.core import progress
from prectr.core.errors import UsageError, listed, quoted, shorten
from prectr.labelling.config import TeacherConfig


def train_bpe(texts: Iterable[str], vocabulary: int, max_length: int) -> Any:
    """Train a byte-level BPE tokenizer like Qwen2's, with at most `vocabulary` tokens; each digit is one token.

    It must split text as Qwen2's tokenizer does. For a Qwen2 checkpoint every loader builds that class and ignores the
    normaliser and splitting rule in the tokenizer file, so with other rules the teacher would be asked with other
    tokens than it was trained on.
    """
    from transformers import Qwen2Tokenizer

    tokenizer = Qwen2Tokenizer().train_new_from_iterator(texts, vocabulary, show_progress=False)
    tokenizer.model_max_length = max_length
    return tokenizer


def new_model(config: TeacherConfig, vocabulary: int, end_of_text: int) -> Any:
    """Make a Qwen2 with random weights in the configured shape. Input and output embeddings are tied."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=config.width,
            intermediate_size=config.feed_forward,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            # One more than a prompt, because vLLM counts the answer token too.
            max_position_embeddings=max(512, config.max_length + 1),
            attention_dropout=config.dropout,
            tie_word_embeddings=True,
            use_cache=False,
            bos_token_id=None,
            eos_token_id=end_of_text,
            pad_token_id=end_of_text,
        )
    )


def quiet_transformers() -> None:
    """Turn off transformers' progress bars for saving and loading, unless the run is verbose."""
    from transformers.utils import logging

    if progress.verbosity() < 1:
        logging.disable_progress_bar()


def load_tokenizer(teacher: str) -> Any:
    """Load the tokenizer of a checkpoint directory, or of a model on the hub by its name.

    Raises:
        UsageError: there is no such tokenizer, or the hub cannot be reached.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(teacher)
    except (OSError, ValueError) as error:
        hint = "the directory holds no tokenizer" if Path(teacher).is_dir() else "no such directory"
        raise UsageError(
            f"teacher {quoted(teacher, 300)}: cannot be loaded ({hint}; {shorten(error)}). "
            "Give a checkpoint directory, e.g. from `prectr train-teacher`, or the name of a model on the hub."
        ) from None


def check_base_model(name: str, max_length: int) -> None:
    """Check by its configuration that a base model can be trained. Reads no weights.

    Args:
        name: directory of a checkpoint, or a model's name on the hub.
        max_length: tokens of the longest prompt.

    Raises:
        UsageError: there is no such model, it is not causal, or its context is too short.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    _refuse_missing_directory(name)
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UsageError(_load_error_message(name, error)) from None
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UsageError(not_causal_message(name, config.model_type))
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    if context is not None and context <= max_length:
        raise UsageError(
            f"teacher.base_model {quoted(name, 300)}: reads at most {context} tokens, too few for "
            f"prompts of teacher.max_length {max_length} and an answer; set teacher.max_length below {context}, or "
            "choose another model."
        )


def load_base_model(name: str, data_type: Any) -> Any:
    """Load the causal language model of a checkpoint in a torch type, or in the checkpoint's type if that is "auto".

    Raises:
        UsageError: the weights cannot be loaded, or the model has no output layer.
    """
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(name, dtype=data_type)
    except (OSError, ValueError) as error:
        raise UsageError(_load_error_message(name, error)) from None
    if model.get_output_embeddings() is None:
        raise UsageError(not_causal_message(name, model.config.model_type))
    return model


def add_adapters(model: Any, rank: int, alpha: float, targets: Sequence[str] | None) -> Any:
    """Freeze the model and add LoRA adapters to its linear layers, in place, through `peft`.

        W' = W + (alpha / rank) B A,    A [rank, in] random, B [out, rank] zero at the start        [LoRA, ICLR 2022]

    Args:
        model: a Hugging Face causal language model. Callers keep calling this object.
        rank: rank of the adapters, at least 1.
        alpha: scale of the adapters times `rank`.
        targets: names, or last parts of names, of the linear layers to adapt. None: all but the output layer.

    Returns:
        peft's view of the model. Its `merge_and_unload` gives a model of the base's class with the base's tensor names,
        so that a checkpoint holds nothing of `peft`.

    Raises:
        UsageError: a target names no linear layer; the message lists the layers.
    """
    from peft import LoraConfig, get_peft_model

    layers = _linear_layers(model)
    for target in targets or ():
        if not any(layer == target or layer.endswith(f".{target}") for layer in layers):
            available = listed(sorted({layer.rsplit(".", 1)[-1] for layer in layers}))
            raise UsageError(
                f"teacher.lora_targets: the base model has no linear layer {quoted(target)}; it has {available}."
            )
    return get_peft_model(
        model,
        LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules=list(targets) if targets else "all-linear",
            task_type="CAUSAL_LM",
        ),
    )


def _linear_layers(model: Any) -> list[str]:
    """Full names of a model's linear layers without the output layer."""
    import torch
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer

    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    ]


def checkpoint_data_type(name: str) -> Any:
    """Read the torch type of a checkpoint from its configuration; float32 if it states none."""
    import torch
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(name).dtype or torch.float32


def not_causal_message(name: str, architecture: str) -> str:
    """Error message for a base model that does not read from left to right."""
    return (
        f"teacher.base_model {quoted(name, 300)}: a {architecture} is no causal language model, but a teacher must be "
        "one; choose e.g. a Qwen2, Llama or GPT-2."
    )


def _load_error_message(name: str, error: Exception) -> str:
    return (
        f"teacher.base_model {quoted(name, 300)}: cannot be loaded ({shorten(error)}). "
        "Give the directory of a checkpoint, or the name of a model on the hub."
    )


def _refuse_missing_directory(name: str) -> None:
    if (Path(name).is_absolute() or name.startswith(".")) and not Path(name).is_dir():
        raise UsageError(f"teacher.base_model {quoted(name, 300)}: no such directory.")

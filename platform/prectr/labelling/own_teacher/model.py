"""The teacher's checkpoint: an ordinary Hugging Face causal language model and its tokenizer.

From scratch it is a small Qwen2 with a byte-level BPE of its own, so that any engine that serves Qwen2 serves it; else
it starts from a checkpoint of any architecture. No training here, and no Ray.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prectr.core import progress
from prectr.core.errors import UsageError
from prectr.labelling.config import TeacherConfig


def train_bpe(texts: Iterable[str], vocabulary: int, max_length: int) -> Any:
    """A byte-level BPE tokenizer of Qwen2's kind, of at most `vocabulary` tokens; every digit is a token of its own.

    It must split text as Qwen2's does: for a Qwen2 checkpoint every loader builds that class and ignores the normaliser
    and splitting rule that the tokenizer file names, so one that differs would be trained on other tokens than it is
    asked with.
    """
    from transformers import Qwen2Tokenizer

    tokenizer = Qwen2Tokenizer().train_new_from_iterator(texts, vocabulary, show_progress=False)
    tokenizer.model_max_length = max_length
    return tokenizer


def new_model(config: TeacherConfig, vocabulary: int, end_of_text: int) -> Any:
    """A Qwen2 with fresh weights in the configured shape, input and output embeddings tied."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=config.width,
            intermediate_size=config.feed_forward,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            # One more than a prompt: vLLM counts the answer too.
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
    """Keep the progress bars of saving and loading out of the user's terminal; a stage has its own line."""
    from transformers.utils import logging

    if progress.verbosity() < 1:
        logging.disable_progress_bar()


def load_tokenizer(teacher: str) -> Any:
    """The tokenizer of a checkpoint directory or of a model's name on the hub.

    Raises:
        UsageError: there is none, or it cannot be reached.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(teacher)
    except (OSError, ValueError) as error:
        hint = "it is a directory without a tokenizer" if Path(teacher).is_dir() else "it is no directory here"
        raise UsageError(
            f"teacher '{teacher}': cannot be loaded ({hint}; {str(error).splitlines()[0]}). "
            "Give a checkpoint directory, e.g. from `prectr train-teacher`, or the name of a model on the hub."
        ) from None


def check_base_model(name: str, max_length: int) -> None:
    """Refuse a base model that cannot be trained, by its configuration alone: no weights are read.

    Args:
        name: directory of a checkpoint, or a model's name on the hub.
        max_length: tokens of the longest prompt.

    Raises:
        UsageError: there is no such model, it is no causal language model, or its context is too short.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    _refuse_missing_directory(name)
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UsageError(_not_loadable(name, error)) from None
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UsageError(not_causal(name, config.model_type))
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    if context is not None and context <= max_length:
        raise UsageError(
            f"teacher.base_model '{name}': reads at most {context} tokens, too few for prompts of teacher.max_length "
            f"{max_length} and an answer; lower teacher.max_length below {context}, or choose another model."
        )


def load_base_model(name: str, data_type: Any) -> Any:
    """The causal language model of a checkpoint, in a torch type, or in its own if that is "auto".

    Raises:
        UsageError: its weights cannot be loaded, or it has no output layer.
    """
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(name, dtype=data_type)
    except (OSError, ValueError) as error:
        raise UsageError(_not_loadable(name, error)) from None
    if model.get_output_embeddings() is None:
        raise UsageError(not_causal(name, model.config.model_type))
    return model


def own_data_type(name: str) -> Any:
    """The torch type that a checkpoint is stored in, as its configuration says; float32 where it says nothing."""
    import torch
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(name).dtype or torch.float32


def not_causal(name: str, kind: str) -> str:
    """What to tell the user of a model that does not read from left to right."""
    return (
        f"teacher.base_model '{name}': a {kind} is no causal language model, which a teacher must be; "
        "choose one such as Qwen2, Llama or GPT-2."
    )


def _not_loadable(name: str, error: Exception) -> str:
    return (
        f"teacher.base_model '{name}': cannot be loaded ({str(error).splitlines()[0]}). "
        "Give the directory of a checkpoint, or the name of a model on the hub."
    )


def _refuse_missing_directory(name: str) -> None:
    if (Path(name).is_absolute() or name.startswith(".")) and not Path(name).is_dir():
        raise UsageError(f"teacher.base_model '{name}': no such directory.")

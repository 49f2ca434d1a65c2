"""The teacher's checkpoint: an ordinary Hugging Face causal language model and its tokenizer.

From scratch it is a small Qwen2 with a byte-level BPE of its own, so that any engine that serves Qwen2 serves it. No
training here, and no Ray.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prectr import progress
from prectr.errors import UsageError
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
            max_position_embeddings=max(512, config.max_length),
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

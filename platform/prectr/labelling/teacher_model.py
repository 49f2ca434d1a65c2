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

END_OF_TEXT = "<|endoftext|>"


def train_bpe(texts: Iterable[str], vocabulary: int, max_length: int) -> Any:
    """A byte-level, lower-case BPE tokenizer of at most `vocabulary` tokens in which every digit is a token of its own.

    Digits are split so that the labels are single tokens whatever stands before them, and so that an unseen model
    number is read digit by digit instead of as one unknown word.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT, model_max_length=max_length
    )


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

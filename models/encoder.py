"""Text encoder: any Hugging Face encoder, with match features, maps a pair to a vector and relevance level logits.

    v = Encoder(query, title)          u = GELU(U (m - mean) / deviation + c)
    h = [v, u]                         z = W h + b

| symbol | variable | shape |
|---|---|---|
| v | vector | [P, e] |
| m | match | [P, M] |
| u | units | [P, w] |
| h | text | [P, d], d = e + w |
| z | level_logits | [P, k] |
| W, b | classifier | [k, d], [k] |

PRECTR-V2 replaces the frozen BERT of PRECTR by a lightweight encoder, distilled from a language model on text relevance
and tuned together with clicks [paper]. Any Hugging Face encoder with a linear head over the levels will do; a head that
also reads match features knows equal words, numbers and brands that a small encoder has never seen [ours].

This module does not tokenise. `.model` is an ordinary Hugging Face model, whose own linear head reads v alone.
"""

import inspect
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from prectr.contracts.model_config import LEVELS, EncoderConfig

MATCH_HEAD_FILE = "match_head.safetensors"
"""The weights of `MatchHead` beside a Hugging Face checkpoint."""
_SEGMENTS = 2  # token types of query and title; those after them mark matches
_LARGEST = 6.0  # deviations of a feature; a text of a thousand words must not move a vector without bound


class MatchHead(nn.Module):
    """Hidden units over standardised match features, and the classifier over the text vector with them.

    Args:
        vector: e, width of the encoder's vectors.
        features: M, number of match features.
        width: w, number of units.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, vector: int, features: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.hidden = nn.Linear(features, width)
        self.classifier = nn.Linear(vector + width, LEVELS)

    def standardise(self, match: Tensor) -> None:
        """Take mean and deviation from the match features of training pairs [n, M]."""
        self.mean.copy_(match.mean(0))
        self.deviation.copy_(match.std(0, correction=0).clamp(min=1e-3))

    def forward(self, vector: Tensor, match: Tensor) -> Tensor:
        """Vectors [P, e], match features [P, M] -> text [P, e + w]."""
        standardised = ((match - self.mean) / self.deviation).clamp(-_LARGEST, _LARGEST)
        return torch.cat([vector, functional.gelu(self.hidden(standardised)).to(vector.dtype)], -1)


class TextEncoder(nn.Module):
    """Wrap a Hugging Face sequence classification model with k labels, and a match head if there is one.

    Without a head, `text` is the input of the model's last linear layer. A copy of `classifier` (the RSL head)
    therefore turns `text` into the level logits, whatever the architecture computes before it.

    Raises:
        ValueError: `.num_labels` is not k, or the model has no linear layer with k outputs at its end.
    """

    def __init__(self, model: PreTrainedModel, match_head: MatchHead | None = None) -> None:
        super().__init__()
        if model.config.num_labels != LEVELS:
            raise ValueError(
                f"the encoder has {model.config.num_labels} labels, but the platform has {LEVELS} relevance levels; "
                f"load it with num_labels={LEVELS}."
            )
        self.model = model
        heads = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and module.out_features == LEVELS
        ]
        if not heads:
            raise ValueError(f"{type(model).__name__} has no linear layer with {LEVELS} outputs to read `text` from.")
        self._classifier_name = heads[-1]
        self.match_head = match_head
        self._takes_token_types = "token_type_ids" in inspect.signature(model.forward).parameters

    @property
    def plain_classifier(self) -> nn.Linear:
        """The model's own last linear layer, e -> k."""
        module = self.model.get_submodule(self._classifier_name)
        assert isinstance(module, nn.Linear)
        return module

    @property
    def classifier(self) -> nn.Linear:
        """The linear layer d -> k that turns `text` into level logits."""
        return self.plain_classifier if self.match_head is None else self.match_head.classifier

    @property
    def width(self) -> int:
        """Width d of the text vector."""
        return self.classifier.in_features

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor, match: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encode P pairs: three int64 [P, L], match features [P, M] -> text [P, d], level logits [P, k].

        An encoder without a match head ignores `match`.
        """
        vector, plain_logits = self.plain(input_ids, token_type_ids, attention_mask)
        return self._with_match(vector, plain_logits, match)

    def both_logits(
        self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor, match: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Level logits [P, k], and those of the model's own head, which reads no match features."""
        vector, plain_logits = self.plain(input_ids, token_type_ids, attention_mask)
        return self._with_match(vector, plain_logits, match)[1], plain_logits

    def _with_match(self, vector: Tensor, plain_logits: Tensor, match: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.match_head is None:
            return vector, plain_logits
        assert match is not None, "this encoder reads match features"
        text = self.match_head(vector, match)
        return text, self.match_head.classifier(text)

    def plain(self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode P pairs without match features: vectors [P, e], and the level logits [P, k] of the model's own head.

        Do not share one instance between threads: a hook captures the vectors. Serving runs the exported encoder.
        """
        classifier_inputs: list[Tensor] = []
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._takes_token_types:
            inputs["token_type_ids"] = token_type_ids
        hook = self.plain_classifier.register_forward_pre_hook(
            lambda _, arguments: classifier_inputs.append(arguments[0])
        )
        try:
            level_logits = self.model(**inputs).logits
        finally:
            hook.remove()
        return classifier_inputs[0], level_logits

    def forget_marks(self) -> None:
        """Read marked pairs like unmarked ones: the embeddings of marked token types become those of their segments."""
        types = self.model.base_model.embeddings.token_type_embeddings.weight
        with torch.no_grad():
            types[_SEGMENTS:] = types[:_SEGMENTS]

    def save(self, folder: Path) -> None:
        """Write an ordinary Hugging Face checkpoint, and the match head beside it."""
        self.model.save_pretrained(folder)
        if self.match_head is not None:
            state = {name: value.contiguous() for name, value in self.match_head.state_dict().items()}
            save_file(state, folder / MATCH_HEAD_FILE)


def load_encoder(folder: Path, random_weights: bool = False, attention: str | None = None) -> TextEncoder:
    """Read what `TextEncoder.save` wrote.

    Args:
        folder: the artifact of `distill`.
        random_weights: keep the shape only.
        attention: implementation of the attention, for transformers; None: its default.
    """
    options = {} if attention is None else {"attn_implementation": attention}
    if random_weights:
        shape = AutoConfig.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_config(shape, **options)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(folder, **options)
    encoder = TextEncoder(model)
    if (folder / MATCH_HEAD_FILE).is_file():
        state = load_file(folder / MATCH_HEAD_FILE)
        width, features = state["hidden.weight"].shape
        encoder.match_head = MatchHead(encoder.width, features, width)
        kept = ("mean", "deviation") if random_weights else tuple(state)
        encoder.match_head.load_state_dict({name: state[name] for name in kept}, strict=not random_weights)
    return encoder


def build_encoder(config: EncoderConfig, vocabulary_size: int, match_features: int = 0) -> TextEncoder:
    """Build an encoder with random weights for a tokenizer of `vocabulary_size` tokens (padding id 0).

    It has a match head if `match_features`, their number M, is not 0 and `config.match_width` neither.

    Raises:
        ValueError: transformers does not know the architecture.
    """
    hugging_face = AutoConfig.for_model(
        config.architecture,
        vocab_size=vocabulary_size,
        num_hidden_layers=config.layers,
        hidden_size=config.width,
        num_attention_heads=config.heads,
        intermediate_size=config.feed_forward,
        max_position_embeddings=max(config.max_length, 64),
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        num_labels=LEVELS,
        pad_token_id=0,
    )
    encoder = TextEncoder(AutoModelForSequenceClassification.from_config(hugging_face))
    if match_features and config.match_width:
        encoder.match_head = MatchHead(encoder.width, match_features, config.match_width)
    return encoder

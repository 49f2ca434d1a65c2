"""Text encoder: any Hugging Face encoder that maps `query [SEP] title` to a vector and relevance level logits.

    h = Encoder(query, title)          z = W h + b

| symbol | variable | shape |
|---|---|---|
| h | text | [P, d] |
| z | level_logits | [P, k] |
| W, b | classifier | [k, d], [k] |

PRECTR-V2 replaces the frozen BERT of PRECTR by a lightweight encoder, distilled from a language model on text relevance
and tuned together with clicks [paper]. Any Hugging Face encoder with a linear head over the levels will do [ours].

This module neither tokenises nor reads or writes checkpoints; `.model` is an ordinary Hugging Face model.
"""

import inspect
from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from prectr.contracts.model_config import LEVELS, EncoderConfig


class TextEncoder(nn.Module):
    """Wrap a Hugging Face sequence classification model with k labels.

    `text` is the input of the model's last linear layer. A copy of that layer (the RSL head) therefore turns `text`
    into the model's own level logits, whatever the architecture computes before it.

    Raises:
        ValueError: `.num_labels` is not k, or the model has no linear layer with k outputs at its end.
    """

    def __init__(self, model: PreTrainedModel) -> None:
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
        self._takes_token_types = "token_type_ids" in inspect.signature(model.forward).parameters

    @property
    def classifier(self) -> nn.Linear:
        """The model's last linear layer, d -> k."""
        module = self.model.get_submodule(self._classifier_name)
        assert isinstance(module, nn.Linear)
        return module

    @property
    def width(self) -> int:
        """Width d of the text vector."""
        return self.classifier.in_features

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode P pairs: three int64 [P, L] -> text [P, d], level logits [P, k].

        Do not share one instance between threads: a hook captures `text`. Serving runs the exported encoder.
        """
        classifier_inputs: list[Tensor] = []
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._takes_token_types:
            inputs["token_type_ids"] = token_type_ids
        hook = self.classifier.register_forward_pre_hook(lambda _, arguments: classifier_inputs.append(arguments[0]))
        try:
            level_logits = self.model(**inputs).logits
        finally:
            hook.remove()
        return classifier_inputs[0], level_logits


def build_encoder(config: EncoderConfig, vocabulary_size: int) -> TextEncoder:
    """Build an encoder with random weights for a tokenizer of `vocabulary_size` tokens (padding id 0).

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
    return TextEncoder(AutoModelForSequenceClassification.from_config(hugging_face))

"""Wide&Deep (Cheng et al., arXiv 1606.07792), the base of RelaImpr in the main table.

    logit y = w . [one-hot fields, numbers] + MLP([embedded fields, numbers]) + b

It reads neither text nor behaviours nor tolerance, and the match features only by switch. Its level distribution is
the looked-up one (uniform where there is none), so that it can stand in every table; it does not learn levels.

| symbol | variable | shape |
|---|---|---|
| w | wide_fields, wide_numbers | |
| numbers | numeric (and match by switch) | [B, N] |
"""

import math

import torch
from torch import Tensor, nn

from models.encoder import TextEncoder
from models.features import FieldEmbeddings
from models.layers import feed_forward
from models.ranker import Ranker
from models.rsl import look_up
from prectr.model_config import LEVELS, FeatureSizes, ModelConfig
from prectr.types import RankerInputs, RankerOutput


class WideDeep(Ranker):
    """The Wide&Deep baseline."""

    uses_text = False

    def __init__(self, config: ModelConfig, sizes: FeatureSizes, encoder: TextEncoder) -> None:
        super().__init__(config, sizes, encoder, trains_encoder=False)
        self.settings = config.wide_deep
        cardinalities = list(sizes.categorical.values())
        numbers = sizes.numeric + (sizes.match if self.settings.match else 0)
        self.wide_fields = FieldEmbeddings(cardinalities, 1, "sum", deviation=0.0)
        self.wide_numbers = nn.Linear(numbers, 1)
        self.deep_fields = FieldEmbeddings(cardinalities, self.settings.embedding)
        width = len(cardinalities) * self.settings.embedding + numbers
        self.deep = feed_forward(width, self.settings.hidden, 1, self.settings.dropout)
        prior = config.fusion.prior_click_rate
        nn.init.constant_(self.wide_numbers.bias, math.log(prior / (1 - prior)))

    def forward(self, inputs: RankerInputs, text: Tensor) -> RankerOutput:
        """Score B rows; `text` is not read."""
        known, log_probabilities = look_up(inputs.match)
        numbers = inputs.numeric
        if self.settings.match:
            lexical = inputs.match[:, LEVELS:]
            numbers = torch.cat([numbers, known * log_probabilities.exp(), lexical], -1)
        wide = self.wide_fields(inputs.categorical) + self.wide_numbers(numbers)
        deep = self.deep(torch.cat([self.deep_fields(inputs.categorical), numbers], -1))
        click_logit = (wide + deep).squeeze(-1)
        return RankerOutput(
            click_logit=click_logit,
            level_logits=log_probabilities,
            level_click_logits=click_logit.unsqueeze(-1).repeat(1, LEVELS),
            incentive=torch.zeros_like(click_logit),
        )

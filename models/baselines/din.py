"""DIN (Zhou et al., arXiv 1706.06978): attention of the target over the user's behaviours.

    logit y = MLP([embedded fields, numbers, t, u]) + b
    u = sum_j a(b_j, t) b_j,          a(b, t) = MLP_a([b, t, b - t, b * t])          not normalised, as published

b_j is the sum of the embedded fields of behaviour j of S_u; t is the same sum over the row's own fields.

| symbol | variable | shape |
|---|---|---|
| b | behaviours | [B, L, d] |
| t | target | [B, d] |
| u | interest | [B, d] |
"""

import torch
from torch import Tensor, nn

from models.baselines.common import baseline_output, numbers_of, numbers_width, start_at_prior
from models.encoder import TextEncoder
from models.features import FieldEmbeddings
from models.layers import feed_forward
from models.ranker import Ranker
from prectr.contracts.model_config import FeatureSizes, ModelConfig
from prectr.contracts.types import RankerInputs, RankerOutput


class Din(Ranker):
    """The DIN baseline."""

    uses_text = False

    def __init__(self, config: ModelConfig, sizes: FeatureSizes, encoder: TextEncoder) -> None:
        super().__init__(config, sizes, encoder, trains_encoder=False)
        self.settings = config.baseline
        width = self.settings.behaviour_width
        self.fields = FieldEmbeddings(list(sizes.categorical.values()), self.settings.embedding)
        self.behaviours = FieldEmbeddings(list(sizes.behaviour.values()), width, "sum", deviation=0.1)
        self.activation = feed_forward(4 * width, self.settings.attention_hidden, 1)
        deep_width = len(sizes.categorical) * self.settings.embedding + numbers_width(self.settings, sizes) + 2 * width
        self.deep = feed_forward(deep_width, self.settings.hidden, 1, self.settings.dropout)
        last = self.deep[-1]
        assert isinstance(last, nn.Linear)
        start_at_prior(last, config.fusion.prior_click_rate)

    def forward(self, inputs: RankerInputs, text: Tensor) -> RankerOutput:
        """Score B rows; `text` is not read."""
        target = self.behaviours(inputs.target)
        interest = self._interest(self.behaviours(inputs.user_behaviours), target, inputs.user_mask)
        parts = [self.fields(inputs.categorical), numbers_of(self.settings, inputs), target, interest]
        return baseline_output(self.deep(torch.cat(parts, -1)).squeeze(-1), inputs)

    def _interest(self, behaviours: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Interest u, zeros for an empty history: [B, L, d], [B, d], bool [B, L] -> [B, d]."""
        targets = target.unsqueeze(1).expand_as(behaviours)
        features = torch.cat([behaviours, targets, behaviours - targets, behaviours * targets], -1)
        weight = self.activation(features).masked_fill(~mask.unsqueeze(-1), 0.0)
        return (weight * behaviours).sum(1)

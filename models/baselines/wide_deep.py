"""Wide&Deep (Cheng et al., arXiv 1606.07792), the reference model of RelaImpr in the main table.

    logit y = w . [one-hot fields, numbers] + MLP([embedded fields, numbers]) + b

It reads neither text nor behaviours nor tolerance. It reads the match features only with `baseline.match`.

| symbol | variable | shape |
|---|---|---|
| w | wide_fields, wide_numbers | |
| numbers | numeric, with baseline.match also match | [B, N] |
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


class WideDeep(Ranker):
    """The Wide&Deep baseline."""

    uses_text = False
    reads_behaviours = False

    def __init__(self, config: ModelConfig, sizes: FeatureSizes, encoder: TextEncoder) -> None:
        super().__init__(config, sizes, encoder, trains_encoder=False)
        self.settings = config.baseline
        cardinalities = list(sizes.categorical.values())
        numbers = numbers_width(self.settings, sizes)
        self.wide_fields = FieldEmbeddings(cardinalities, 1, "sum", deviation=0.0)
        self.wide_numbers = nn.Linear(numbers, 1)
        self.deep_fields = FieldEmbeddings(cardinalities, self.settings.embedding)
        width = len(cardinalities) * self.settings.embedding + numbers
        self.deep = feed_forward(width, self.settings.hidden, 1, self.settings.dropout)
        start_at_prior(self.wide_numbers, config.fusion.prior_click_rate)

    def forward(self, inputs: RankerInputs, text: Tensor) -> RankerOutput:
        """Score B rows; `text` is not read."""
        numbers = numbers_of(self.settings, inputs)
        wide = self.wide_fields(inputs.categorical) + self.wide_numbers(numbers)
        deep = self.deep(torch.cat([self.deep_fields(inputs.categorical), numbers], -1))
        return baseline_output((wide + deep).squeeze(-1), inputs)

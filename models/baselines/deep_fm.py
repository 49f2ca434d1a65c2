"""DeepFM (Guo et al., arXiv 1703.04247).

    logit y = w . [one-hot fields, numbers] + sum_{i<j} <e_i, e_j> + MLP([e_1 .. e_F, numbers]) + b

e_i is the embedding of field i. A number x_n enters the pairs as the vector x_n v_n. The sum over pairs takes linear
time: sum_{i<j} <e_i, e_j> = 1/2 (|sum_i e_i|^2 - sum_i |e_i|^2).

| symbol | variable | shape |
|---|---|---|
| w | linear_fields, linear_numbers | |
| e | fields | [B, F, d] |
| v | number_vectors | [N, d] |
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


class DeepFM(Ranker):
    """The DeepFM baseline."""

    uses_text = False
    reads_behaviours = False

    def __init__(self, config: ModelConfig, sizes: FeatureSizes, encoder: TextEncoder) -> None:
        super().__init__(config, sizes, encoder, trains_encoder=False)
        self.settings = config.baseline
        cardinalities = list(sizes.categorical.values())
        numbers, width = numbers_width(self.settings, sizes), self.settings.embedding
        self.linear_fields = FieldEmbeddings(cardinalities, 1, "sum", deviation=0.0)
        self.linear_numbers = nn.Linear(numbers, 1)
        self.fields = FieldEmbeddings(cardinalities, width)
        self.number_vectors = nn.Parameter(torch.randn(numbers, width) * 0.05)
        deep_width = len(cardinalities) * width + numbers
        self.deep = feed_forward(deep_width, self.settings.hidden, 1, self.settings.dropout)
        start_at_prior(self.linear_numbers, config.fusion.prior_click_rate)

    def forward(self, inputs: RankerInputs, text: Tensor) -> RankerOutput:
        """Score B rows; `text` is not read."""
        numbers, fields = numbers_of(self.settings, inputs), self.fields(inputs.categorical)
        linear = self.linear_fields(inputs.categorical) + self.linear_numbers(numbers)
        deep = self.deep(torch.cat([fields, numbers], -1))
        return baseline_output((linear + deep).squeeze(-1) + self._pairs(fields, numbers), inputs)

    def _pairs(self, fields: Tensor, numbers: Tensor) -> Tensor:
        """sum_{i<j} <e_i, e_j> over fields and numbers: [B, F d], [B, N] -> [B]."""
        embedded = fields.unflatten(-1, (-1, self.settings.embedding))
        total = embedded.sum(-2) + numbers @ self.number_vectors
        squares = fields.square().sum(-1) + numbers.square() @ self.number_vectors.square().sum(-1)
        return 0.5 * (total.square().sum(-1) - squares)

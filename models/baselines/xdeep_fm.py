"""xDeepFM (Lian et al., arXiv 1803.05170): DeepFM with a compressed interaction network (CIN) instead of the pairs.

    logit y = w . [one-hot fields, numbers] + w_o . [p^1 .. p^T] + MLP([e_1 .. e_F, numbers]) + b
    X^k_h = sum_ij W^k_hij (X^{k-1}_i * X^0_j)            p^k_h = sum over the width d of X^k_h

The rows of X^0 are the embeddings e_i of the fields and the vectors x_n v_n of the numbers, as in `deep_fm`; * is
elementwise. W^k has no bias and X^k no activation, as published.

| symbol | variable | shape |
|---|---|---|
| w | linear_fields, linear_numbers | |
| e | fields | [B, F, d] |
| v | number_vectors | [N, d] |
| X^0 | rows | [B, d, m], m = F + N |
| W^k | layers[k - 1] | [H_k, H_{k-1} m] |
| w_o | last | [sum_k H_k] |
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.baselines.common import baseline_output, numbers_of, numbers_width, start_at_prior
from models.encoder import TextEncoder
from models.features import FieldEmbeddings
from models.layers import feed_forward
from models.ranker import Ranker
from prectr.contracts.model_config import FeatureSizes, ModelConfig
from prectr.contracts.types import RankerInputs, RankerOutput


class CompressedInteraction(nn.Module):
    """CIN over m rows of width d with one layer for each of `sizes`; the output is a logit."""

    def __init__(self, rows: int, sizes: Sequence[int]) -> None:
        super().__init__()
        input_rows = [rows, *sizes]
        self.layers = nn.ModuleList(
            nn.Linear(inputs * rows, outputs, bias=False) for inputs, outputs in zip(input_rows, sizes, strict=False)
        )
        self.last = nn.Linear(sum(sizes), 1, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        """X^0 as [B, d, m], width before rows -> logit [B, 1]."""
        interactions, pooled = rows, []
        for layer in self.layers:
            interactions = layer((interactions.unsqueeze(-1) * rows.unsqueeze(-2)).flatten(-2))
            pooled.append(interactions.sum(1))
        return self.last(torch.cat(pooled, -1))


class XDeepFM(Ranker):
    """The xDeepFM baseline."""

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
        self.interaction = CompressedInteraction(len(cardinalities) + numbers, self.settings.interaction)
        deep_width = len(cardinalities) * width + numbers
        self.deep = feed_forward(deep_width, self.settings.hidden, 1, self.settings.dropout)
        start_at_prior(self.linear_numbers, config.fusion.prior_click_rate)

    def forward(self, inputs: RankerInputs, text: Tensor) -> RankerOutput:
        """Score B rows; `text` is not read."""
        numbers, fields = numbers_of(self.settings, inputs), self.fields(inputs.categorical)
        linear = self.linear_fields(inputs.categorical) + self.linear_numbers(numbers)
        embedded = fields.unflatten(-1, (-1, self.settings.embedding))
        rows = torch.cat([embedded, numbers.unsqueeze(-1) * self.number_vectors], 1)
        deep = self.deep(torch.cat([fields, numbers], -1))
        return baseline_output((linear + self.interaction(rows.transpose(1, 2)) + deep).squeeze(-1), inputs)

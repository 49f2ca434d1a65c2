"""DNN (Covington et al., RecSys 2016): the deep half of Wide&Deep.

    logit y = MLP([embedded fields, numbers])

| symbol | variable | shape |
|---|---|---|
| embedded fields | fields | [B, F d] |
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


class Dnn(Ranker):
    """The DNN baseline."""

    uses_text = False
    reads_behaviours = False

    def __init__(self, config: ModelConfig, sizes: FeatureSizes, encoder: TextEncoder) -> None:
        super().__init__(config, sizes, encoder, trains_encoder=False)
        self.settings = config.baseline
        self.fields = FieldEmbeddings(list(sizes.categorical.values()), self.settings.embedding)
        width = len(sizes.categorical) * self.settings.embedding + numbers_width(self.settings, sizes)
        self.deep = feed_forward(width, self.settings.hidden, 1, self.settings.dropout)
        last = self.deep[-1]
        assert isinstance(last, nn.Linear)
        start_at_prior(last, config.fusion.prior_click_rate)

    def forward(self, inputs: RankerInputs, text: Tensor) -> RankerOutput:
        """Score B rows; `text` is not read."""
        parts = [self.fields(inputs.categorical), numbers_of(self.settings, inputs)]
        return baseline_output(self.deep(torch.cat(parts, -1)).squeeze(-1), inputs)

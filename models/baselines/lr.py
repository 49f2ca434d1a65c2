"""Logistic regression, the simplest model of the main table (for clicks: McMahan et al., KDD 2013).

    logit y = w . [one-hot fields, numbers] + b

It has no interactions between features.

| symbol | variable | shape |
|---|---|---|
| w | fields, numbers | |
| b | numbers.bias | |
"""

from torch import Tensor, nn

from models.baselines.common import baseline_output, numbers_of, numbers_width, start_at_prior
from models.encoder import TextEncoder
from models.features import FieldEmbeddings
from models.ranker import Ranker
from prectr.contracts.model_config import FeatureSizes, ModelConfig
from prectr.contracts.types import RankerInputs, RankerOutput


class LogisticRegression(Ranker):
    """The LR baseline."""

    uses_text = False
    reads_behaviours = False

    def __init__(self, config: ModelConfig, sizes: FeatureSizes, encoder: TextEncoder) -> None:
        super().__init__(config, sizes, encoder, trains_encoder=False)
        self.settings = config.baseline
        self.fields = FieldEmbeddings(list(sizes.categorical.values()), 1, "sum", deviation=0.0)
        self.numbers = nn.Linear(numbers_width(self.settings, sizes), 1)
        start_at_prior(self.numbers, config.fusion.prior_click_rate)

    def forward(self, inputs: RankerInputs, text: Tensor) -> RankerOutput:
        """Score B rows; `text` is not read."""
        logit = self.fields(inputs.categorical) + self.numbers(numbers_of(self.settings, inputs))
        return baseline_output(logit.squeeze(-1), inputs)

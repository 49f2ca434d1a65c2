"""Base module: click probability given each relevance level.

    c = sigmoid(MLP_base([user, item, context, query embeddings, W h, numeric features]))    [summary]; W, heads [ours]

W makes few numbers of h, so that the heads cannot learn single texts by heart, and yet know of an item what its fields
do not say; the group `parts` of `make bench-quality` compares it with all of h and with none.
One trunk, one output a level. It also reads the lexical match features and the expected level sum_i p_i i / (k - 1)
[ours], and with preference mining the tolerance numbers and the query's preference [ours]. It reads neither the
looked-up levels nor the numeric features that are a relevance: relevance reaches it through p only, so that a fake row
can be given another level.

| symbol | variable | shape |
|---|---|---|
| user, item, context, query | categorical, numeric without relevances | [B, C], [B, N] |
| h | text | [B, d] |
| logit c | answer | [B, k] |
"""

import math

import torch
from torch import Tensor, nn

from models.features import FieldEmbeddings
from models.layers import feed_forward
from prectr.contracts.model_config import LEVELS, FeatureSizes, FusionConfig
from prectr.contracts.types import RankerInputs


class BaseModule(nn.Module):
    """Level-wise click logits; `preference` says whether tolerance and query_preference are read."""

    numeric_columns: Tensor

    def __init__(self, config: FusionConfig, sizes: FeatureSizes, preference: bool) -> None:
        super().__init__()
        self.preference = preference
        self.expected_level = config.expected_level
        given = sizes.relevance.numeric if sizes.relevance else ()
        kept = [column for column in range(sizes.numeric) if column not in given]
        self.register_buffer("numeric_columns", torch.tensor(kept, dtype=torch.int64), persistent=False)
        self.fields = FieldEmbeddings(list(sizes.categorical.values()), config.embedding)
        self.text = nn.Linear(sizes.text, config.text_width) if config.text_width else None
        width = len(sizes.categorical) * config.embedding + len(kept) + sizes.match - LEVELS + config.text_width
        width += int(self.expected_level) + preference * (sizes.tolerance + sizes.query_preference)
        self.network = feed_forward(width, config.hidden, LEVELS, config.dropout)
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, math.log(config.prior_click_rate / (1 - config.prior_click_rate)))

    def forward(self, inputs: RankerInputs, text: Tensor, expected_level: Tensor) -> Tensor:
        """Inputs of B rows, text [B, d], expected level in 0..1 [B] -> logit c [B, k]."""
        numeric = inputs.numeric.index_select(-1, self.numeric_columns)
        columns = [self.fields(inputs.categorical), numeric, inputs.match[:, LEVELS:]]
        if self.text is not None:
            columns.append(self.text(text))
        if self.expected_level:
            columns.append(expected_level.unsqueeze(-1))
        if self.preference:
            columns += [inputs.tolerance, inputs.query_preference]
        return self.network(torch.cat(columns, -1))

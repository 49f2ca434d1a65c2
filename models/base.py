"""Base module: the click probability given each relevance level.

    c = sigmoid(MLP_base([user, item, context, query embeddings, W h, numeric features]))    [summary]; W, heads [ours]

One trunk has one output per level. W projects h to a few numbers: the heads learn facts about an item that its fields
lack, but cannot memorise single texts. The group `parts` of `make bench-quality` compares W h with all of h and with
none of it.

The module also reads the lexical match features and the expected level sum_i p_i i / (k - 1) [ours] and, with
preference mining, the tolerance numbers and the query's preference [ours]. It reads neither the looked-up levels nor
the numeric features that measure relevance. Relevance enters through p only, so that a fake row can get another level.

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
    """Click logits per level; with `preference` it also reads tolerance and query_preference."""

    numeric_columns: Tensor

    def __init__(self, config: FusionConfig, sizes: FeatureSizes, preference: bool) -> None:
        super().__init__()
        self.preference = preference
        self.expected_level = config.expected_level
        relevance_columns = sizes.relevance.numeric if sizes.relevance else ()
        kept_columns = [column for column in range(sizes.numeric) if column not in relevance_columns]
        self.register_buffer("numeric_columns", torch.tensor(kept_columns, dtype=torch.int64), persistent=False)
        self.fields = FieldEmbeddings(list(sizes.categorical.values()), config.embedding)
        self.text = nn.Linear(sizes.text, config.text_width) if config.text_width else None
        width = len(sizes.categorical) * config.embedding + len(kept_columns) + sizes.match - LEVELS + config.text_width
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

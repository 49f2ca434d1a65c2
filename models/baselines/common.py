"""Shared parts of the baselines: the numbers they read and the output they return.

A baseline does not learn relevance levels. Its level distribution is the looked-up one (uniform without a look-up), its
click probability is the same at every level, and its incentive is 0.
"""

import math

import torch
from torch import Tensor, nn

from models.rsl import look_up
from prectr.contracts.model_config import LEVELS, BaselineConfig, FeatureSizes
from prectr.contracts.types import RankerInputs, RankerOutput


def numbers_width(config: BaselineConfig, sizes: FeatureSizes) -> int:
    """Number of columns of `numbers_of`."""
    return sizes.numeric + (sizes.match if config.match else 0)


def numbers_of(config: BaselineConfig, inputs: RankerInputs) -> Tensor:
    """Numeric features, and with `config.match` also the match features with the looked-up levels: [B, N]."""
    if not config.match:
        return inputs.numeric
    known, log_probabilities = look_up(inputs.match)
    return torch.cat([inputs.numeric, known * log_probabilities.exp(), inputs.match[:, LEVELS:]], -1)


def baseline_output(click_logit: Tensor, inputs: RankerInputs) -> RankerOutput:
    """Build the output of B rows from their click logits [B]."""
    _, log_probabilities = look_up(inputs.match)
    return RankerOutput(
        click_logit=click_logit,
        level_logits=log_probabilities,
        level_click_logits=click_logit.unsqueeze(-1).repeat(1, LEVELS),
        incentive=torch.zeros_like(click_logit),
    )


def start_at_prior(layer: nn.Linear, click_rate: float) -> None:
    """Set the bias of a last layer so that the initial click probability is the prior click rate."""
    nn.init.constant_(layer.bias, math.log(click_rate / (1 - click_rate)))

"""PRECTR (V1): relevance and click fused, with an incentive from the user's own history [paper, summary].

    p = softmax(RSL(h, match)),  c = sigmoid(Base(fields, numbers, h)),  tau = Incentive(S_u)
    logit y = logit(sum_i c_i p_i) + tau
    L = BCE(y with position) + w_A (A) + w_B (B)

Semantic consistency regularisation [paper, form ours] keeps the meaning of each level (A) and makes click
probabilities rise with the level (B):

    (A)  KL(q_rsl || p), which for a gold one-hot label is CE(y_rsl, p)
    (B)  mean_i max(0, m + c_i - c_{i+1})

The encoder is frozen; there is no cross-user preference and no exposure debias. `prectr_v2` adds these.

| symbol | variable | shape |
|---|---|---|
| h | text | [B, d] |
| p | softmax(level_logits) | [B, k] |
| c | sigmoid(level_click_logits) | [B, k] |
| q_rsl | level_soft | [B, k] |
| m | margin | scalar |
| (A), (B) | `level`, `order` | scalar |
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.base import BaseModule
from models.encoder import TextEncoder
from models.fusion import expected_level
from models.incentive import Incentive, apply_incentive
from models.ranker import Ranker
from models.rsl import RelevanceModule
from prectr.contracts.model_config import FeatureSizes, ModelConfig
from prectr.contracts.types import RankerInputs, RankerLabels, RankerOutput


class Prectr(Ranker):
    """PRECTR. The keyword arguments are the parts that PRECTR-V2 changes."""

    def __init__(
        self,
        config: ModelConfig,
        sizes: FeatureSizes,
        encoder: TextEncoder,
        *,
        trains_encoder: bool = False,
        preference: bool = False,
        attention: bool = True,
    ) -> None:
        super().__init__(config, sizes, encoder, trains_encoder)
        self.relevance = RelevanceModule(config.fusion, sizes)
        self.relevance.initialise_from(encoder)
        self.base = BaseModule(config.fusion, sizes, preference)
        has_incentive = config.incentive.form != "off"
        incentive = config.incentive.model_copy(update={"attention": attention})
        self.incentive = Incentive(incentive, sizes, across_users=preference) if has_incentive else None
        self.reads_behaviours = has_incentive and attention

    def forward(self, inputs: RankerInputs, text: Tensor) -> RankerOutput:
        """Score B rows; text [B, d]."""
        if not self.trains_encoder:
            text = text.detach()
        level_logits = self.relevance(text, inputs.match, inputs.numeric)
        level_probabilities = level_logits.softmax(-1)
        base_logits = self.base(inputs, text, expected_level(level_probabilities.detach()))
        tau = self.incentive_of(inputs, level_probabilities)
        click_logit, level_click_logits, incentive = apply_incentive(level_logits, base_logits, tau)
        return RankerOutput(click_logit, level_logits, level_click_logits, incentive)

    def incentive_of(self, inputs: RankerInputs, level_probabilities: Tensor) -> Tensor:
        """Incentive tau, [B] or [B, k]; zeros [B] if the incentive is off."""
        if self.incentive is None:
            return level_probabilities[:, 0] * 0
        return self.incentive(inputs, level_probabilities)

    def loss(self, output: RankerOutput, inputs: RankerInputs, text: Tensor, labels: RankerLabels) -> dict[str, Tensor]:
        """Click loss plus `level` (A) and `order` (B); both are returned before weighting."""
        parts = super().loss(output, inputs, text, labels)
        weights = self.config.consistency
        level = level_divergence(output.level_logits, labels.level_soft, labels.level_known, labels.level_weight)
        order = order_hinge(output.level_click_logits, weights.order_margin, weights.order_unit)
        total = parts["total"] + weights.level_weight * level + weights.order_weight * order
        return {**parts, "total": total, "level": level, "order": order}

    def slow_parameters(self) -> list[nn.Parameter]:
        """Parameters of the RSL module."""
        return list(self.relevance.parameters())


def level_divergence(level_logits: Tensor, level_soft: Tensor, known: Tensor, weight: Tensor | None = None) -> Tensor:
    """(A): mean over the rows whose level is known, each times its weight; 0 without any.

    Weights are not relative: rows of low weight leave the term small, also where all rows are such.
    [B, k], [B, k], bool [B], [B] -> [].
    """
    log_level = functional.log_softmax(level_logits, -1)
    divergence = (torch.xlogy(level_soft, level_soft) - level_soft * log_level).sum(-1)
    weighted = divergence if weight is None else divergence * weight
    return torch.where(known, weighted, 0.0).sum() / known.sum().clamp(min=1)


def order_hinge(level_click_logits: Tensor, margin: float, unit: Literal["probability", "logit"]) -> Tensor:
    """(B): mean over rows and neighbouring levels, [B, k] -> []. `unit` is the scale of c and of the margin."""
    click = level_click_logits.sigmoid() if unit == "probability" else level_click_logits
    return functional.relu(margin + click[:, :-1] - click[:, 1:]).mean()

"""PRECTR (V1): relevance and click fused, with an incentive from the user's own history [paper, summary].

    p = softmax(RSL(h, match)),  c = sigmoid(Base(fields, numbers, h)),  tau = Incentive(S_u)
    logit y = logit(sum_i c_i p_i) + tau
    L = BCE(y with position) + w_A (A) + w_B (B)

Frozen encoder, no cross-user preference, no exposure debias. PRECTR-V2 switches these on in `prectr_v2`.

| symbol | variable |
|---|---|
| h | text |
| p | level_logits, before softmax |
| c | level_click_logits, before sigmoid |
| (A), (B) | `level`, `order`: consistency |
"""

from torch import Tensor, nn

from models.base import BaseModule
from models.consistency import level_divergence, order_hinge
from models.encoder import TextEncoder
from models.fusion import expected_level
from models.incentive import Incentive, apply_incentive
from models.ranker import Ranker
from models.rsl import RelevanceModule
from prectr.contracts.model_config import FeatureSizes, ModelConfig
from prectr.contracts.types import RankerInputs, RankerLabels, RankerOutput


class Prectr(Ranker):
    """PRECTR; the keyword arguments are what PRECTR-V2 changes."""

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
        level_logits = self.relevance(text, inputs.match)
        level_probabilities = level_logits.softmax(-1)
        base_logits = self.base(inputs, text, expected_level(level_probabilities.detach()))
        tau = self.incentive_of(inputs, level_probabilities)
        click_logit, level_click_logits, incentive = apply_incentive(level_logits, base_logits, tau)
        return RankerOutput(click_logit, level_logits, level_click_logits, incentive)

    def incentive_of(self, inputs: RankerInputs, level_probabilities: Tensor) -> Tensor:
        """tau [B] or [B, k]; zeros where the incentive is switched off."""
        if self.incentive is None:
            return level_probabilities[:, 0] * 0
        return self.incentive(inputs, level_probabilities)

    def loss(self, output: RankerOutput, inputs: RankerInputs, text: Tensor, labels: RankerLabels) -> dict[str, Tensor]:
        """Adds `level` (A) and `order` (B), before weighting, to the click loss."""
        parts = super().loss(output, inputs, text, labels)
        weights = self.config.consistency
        level = level_divergence(output.level_logits, labels.level_soft, labels.level_known, labels.level_weight)
        order = order_hinge(output.level_click_logits, weights.order_margin, weights.order_unit)
        total = parts["total"] + weights.level_weight * level + weights.order_weight * order
        return {**parts, "total": total, "level": level, "order": order}

    def slow_parameters(self) -> list[nn.Parameter]:
        """The RSL module's."""
        return list(self.relevance.parameters())

"""PRECTR-V2: PRECTR with cross-user preference mining, exposure debias and an encoder tuned with clicks [paper].

    L = BCE(y with position) + w_A (A) + w_B (B) + w_R R

R is the exposure debias of `debias`, (A) and (B) are those of `prectr`. Three settings switch the parts: `preference`
(tolerance numbers, S_q and g_q), `debias` (R) and `encoder`. With all three off and attention on, the model is PRECTR.
Attention over S_u and S_q is off by default, because it takes most of the time of a training step; the group `parts`
of `make bench-quality` measures its gain over the mined numbers.

| symbol | variable |
|---|---|
| (A), (B), R | `level`, `order`, `debias` |
| w_A, w_B | config.consistency.level_weight, .order_weight |
| w_R | config.exposure.weight; null, not measured, is 0 |
"""

from torch import Tensor

from models.debias import ExposureDebias
from models.encoder import TextEncoder
from models.prectr import Prectr
from prectr.contracts.model_config import FeatureSizes, ModelConfig
from prectr.contracts.types import RankerInputs, RankerLabels, RankerOutput


class PrectrV2(Prectr):
    """PRECTR-V2; `config` switches its three parts."""

    def __init__(self, config: ModelConfig, sizes: FeatureSizes, encoder: TextEncoder) -> None:
        super().__init__(
            config,
            sizes,
            encoder,
            trains_encoder=config.encoder != "frozen",
            preference=config.preference,
            attention=config.incentive.attention,
        )
        debias = ExposureDebias(config.exposure, sizes, config.fusion.prior_click_rate)
        self.debias = debias if config.debias else None

    def loss(self, output: RankerOutput, inputs: RankerInputs, text: Tensor, labels: RankerLabels) -> dict[str, Tensor]:
        """The loss of PRECTR plus `debias` (R), which is returned before weighting."""
        parts = super().loss(output, inputs, text, labels)
        weight = self.config.exposure.weight
        if self.debias is None or not weight:
            return parts
        if not self.trains_encoder:
            text = text.detach()
        logit = self.with_position(output.click_logit, labels.position)
        debias = self.debias(output, inputs, text, labels, self.base, self.incentive_of, logit)
        return {**parts, "total": parts["total"] + weight * debias, "debias": debias}

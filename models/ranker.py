"""The interface of all rankers, as the training loop, the exporter and the scorer use it.

    forward(inputs, text) -> RankerOutput              logits, position-free
    loss(output, inputs, text, labels) -> dict         "total" and its parts, scalars
    with_position(click_logit, position) -> logit      for training and for figures at the logged position
    parameter_groups(learning_rate) -> list            for any torch optimizer

The caller runs `ranker.encoder` and passes the text vectors, because each distinct pair is encoded once per batch.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from models.encoder import TextEncoder
from models.features import FieldEmbeddings
from models.layers import LARGE_PRODUCT, HiddenLinear
from models.position import PositionBias
from prectr.contracts.model_config import FeatureSizes, ModelConfig
from prectr.contracts.types import RankerInputs, RankerLabels, RankerOutput


class Ranker(nn.Module):
    """Base of all rankers.

    Attributes:
        trains_encoder: True: the loop must compute `text` with gradients. False: the encoder's parameters need no
            gradient, and the loop may cache text vectors.
        uses_text: False: the model does not read `text`.
        reads_behaviours: False: the model does not read S_u and S_q, which are then empty.
    """

    trains_encoder: bool = False
    uses_text: bool = True
    reads_behaviours: bool = True

    def __init__(self, config: ModelConfig, sizes: FeatureSizes, encoder: TextEncoder, trains_encoder: bool) -> None:
        super().__init__()
        if sizes.text != encoder.width:
            raise ValueError(f"sizes.text is {sizes.text}, the encoder has width {encoder.width}; both must be equal.")
        self.config = config
        self.sizes = sizes
        self.encoder = encoder
        self.trains_encoder = trains_encoder
        self.position = PositionBias(config.position, sizes.positions)
        encoder.requires_grad_(trains_encoder)
        # The ranker has its own level head; the encoder's classifiers are not part of its loss.
        encoder.classifier.requires_grad_(False)
        encoder.plain_classifier.requires_grad_(False)

    def forward(self, inputs: RankerInputs, text: Tensor) -> RankerOutput:
        """Score B rows; text [B, d]."""
        raise NotImplementedError

    def loss(self, output: RankerOutput, inputs: RankerInputs, text: Tensor, labels: RankerLabels) -> dict[str, Tensor]:
        """`click` (mean BCE at the logged position) and `total`. Subclasses add their parts, before weighting."""
        logit = self.with_position(output.click_logit, labels.position)
        click = functional.binary_cross_entropy_with_logits(logit, labels.click)
        return {"total": click, "click": click}

    def with_position(self, click_logit: Tensor, position: Tensor) -> Tensor:
        """Logit of a click at `position` (int64 [B], from 1) from the position-free logit [B]."""
        return self.position(click_logit, position)

    def position_logit(self, position: Tensor) -> Tensor:
        """Bias of a position on the logit, or its log examination probability; 0 at position 1: [B] -> [B]."""
        return self.position.position_logit(position)

    def use_short_products(self, allowed: bool) -> None:
        """Allow or forbid bfloat16 products in the training of large hidden layers."""
        for layer in self.modules():
            if isinstance(layer, HiddenLinear):
                layer.short_products = allowed and layer.weight.numel() >= LARGE_PRODUCT

    def slow_parameters(self) -> list[nn.Parameter]:
        """Pretrained parameters outside the encoder; they train with the encoder's smaller learning rate."""
        return []

    def parameter_groups(self, learning_rate: float, encoder_scale: float = 0.02) -> list[dict[str, Any]]:
        """Groups of `params`, `lr`, `name` for an optimizer.

        The encoder and the RSL module train at `encoder_scale` times the learning rate [ours]. The group "tables"
        holds the large tables of ids, whose gradients are sparse.
        """
        tables = [module.table for module in self.modules() if isinstance(module, FieldEmbeddings) and module.sparse]
        encoder = list(self.encoder.parameters())
        slow = self.slow_parameters()
        position = list(self.position.parameters())
        grouped_ids = {id(parameter) for parameter in [*encoder, *slow, *position, *tables]}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in grouped_ids]
        groups = [
            ("ranker", rest, 1.0),
            ("position", position, self.config.position.learning_rate_scale),
            ("relevance", slow, encoder_scale),
            ("encoder", encoder, encoder_scale),
            ("tables", tables, self.config.table_rate_scale),
        ]
        return [
            {"params": trained, "lr": learning_rate * scale, "name": name}
            for name, parameters, scale in groups
            if (trained := [parameter for parameter in parameters if parameter.requires_grad])
        ]

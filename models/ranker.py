"""The one interface of every ranker: what the training loop, the exporter and the scorer rely on.

    forward(inputs, text) -> RankerOutput              logits, position-free
    loss(output, inputs, text, labels) -> dict         "total" and its parts, scalars
    with_position(click_logit, position) -> logit      for training and for figures "with the logged position"
    parameter_groups(learning_rate) -> list            for any torch optimizer

The caller runs `ranker.encoder` and passes the text vectors, because a distinct pair is encoded once a batch.
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

    `trains_encoder`: the loop must compute `text` with gradients; otherwise it may cache text vectors, and the
    encoder's parameters ask for no gradient. `uses_text`: False means `text` is not read at all. `reads_behaviours`:
    False means S_u and S_q are not, and come empty.
    """

    trains_encoder: bool = False
    uses_text: bool = True
    reads_behaviours: bool = True

    def __init__(self, config: ModelConfig, sizes: FeatureSizes, encoder: TextEncoder, trains_encoder: bool) -> None:
        super().__init__()
        if sizes.text != encoder.width:
            raise ValueError(f"sizes.text is {sizes.text}, the encoder's width {encoder.width}; they must be equal.")
        self.config = config
        self.sizes = sizes
        self.encoder = encoder
        self.trains_encoder = trains_encoder
        self.position = PositionBias(config.position, sizes.positions)
        encoder.requires_grad_(trains_encoder)
        # A ranker's level head is its own; the encoder's classifier takes no part in its loss.
        encoder.classifier.requires_grad_(False)

    def forward(self, inputs: RankerInputs, text: Tensor) -> RankerOutput:
        """Score B rows; text [B, d]."""
        raise NotImplementedError

    def loss(self, output: RankerOutput, inputs: RankerInputs, text: Tensor, labels: RankerLabels) -> dict[str, Tensor]:
        """`click` (mean BCE with the logged position) and "total"; subclasses add their parts, before weighting."""
        logit = self.with_position(output.click_logit, labels.position)
        click = functional.binary_cross_entropy_with_logits(logit, labels.click)
        return {"total": click, "click": click}

    def with_position(self, click_logit: Tensor, position: Tensor) -> Tensor:
        """Logit of a click at `position` (int64 [B], from 1) from the position-free logit [B]."""
        return self.position(click_logit, position)

    def position_logit(self, position: Tensor) -> Tensor:
        """The position's bias on the logit, or its log examination probability: [B] -> [B], 0 at position 1."""
        return self.position.position_logit(position)

    def use_short_products(self, allowed: bool) -> None:
        """Let large hidden layers train with bfloat16 products, or not."""
        for layer in self.modules():
            if isinstance(layer, HiddenLinear):
                layer.short_products = allowed and layer.weight.numel() >= LARGE_PRODUCT

    def slow_parameters(self) -> list[nn.Parameter]:
        """Pretrained parameters besides the encoder's, trained with its smaller learning rate."""
        return []

    def parameter_groups(self, learning_rate: float, encoder_scale: float = 0.02) -> list[dict[str, Any]]:
        """Groups of `params`, `lr`, `name`: encoder and RSL module at `encoder_scale` times the rate [ours].

        The group "tables" holds the large tables of ids, whose gradients are sparse.
        """
        tables = [module.table for module in self.modules() if isinstance(module, FieldEmbeddings) and module.sparse]
        encoder = list(self.encoder.parameters())
        slow = self.slow_parameters()
        position = list(self.position.parameters())
        apart = {id(parameter) for parameter in [*encoder, *slow, *position, *tables]}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in apart]
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

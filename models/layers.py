"""Layers that several models share: feed-forward networks and their initialisation."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

LARGE_PRODUCT = 1 << 15
"""Least number of weights at which a hidden layer's bfloat16 products save more time than the casts cost."""


class HiddenLinear(nn.Linear):
    """A linear layer whose products run in bfloat16 during training if `short_products` is set.

    Parameters, gradients and outputs stay float32. Do not use it as a last layer: a logit needs float32 precision.
    """

    short_products: bool = False

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features], float32."""
        if not (self.short_products and self.training):
            return super().forward(input)
        return functional.linear(input.bfloat16(), self.weight.bfloat16(), self.bias.bfloat16()).float()


def feed_forward(inputs: int, hidden: Sequence[int], outputs: int, dropout: float = 0.0) -> nn.Sequential:
    """Build linear, GELU and dropout for each hidden width, then a linear layer: [..., inputs] -> [..., outputs]."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [HiddenLinear(inputs, width), nn.GELU(), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def start_at_zero(network: nn.Sequential) -> nn.Sequential:
    """Zero the last linear layer, so that the network outputs 0 before training."""
    last = network[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return network

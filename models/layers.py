"""Building blocks that several modules share."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

LARGE_PRODUCT = 1 << 15
"""Weights of a hidden layer from which on bfloat16 products pay for the casts around them."""


class HiddenLinear(nn.Linear):
    """A linear layer whose products in training run in bfloat16 where `short_products` is set.

    Parameters, their gradients and the answer stay float32. Never a last layer: a logit needs all its digits.
    """

    short_products: bool = False

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features], float32."""
        if not (self.short_products and self.training):
            return super().forward(input)
        return functional.linear(input.bfloat16(), self.weight.bfloat16(), self.bias.bfloat16()).float()


def feed_forward(inputs: int, hidden: Sequence[int], outputs: int, dropout: float = 0.0) -> nn.Sequential:
    """Linear, GELU, dropout for each hidden width, then a plain linear layer: [..., inputs] -> [..., outputs]."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [HiddenLinear(inputs, width), nn.GELU(), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def start_at_zero(network: nn.Sequential) -> nn.Sequential:
    """Zero the last linear layer, so that the network answers 0 until it has learned something."""
    last = network[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return network

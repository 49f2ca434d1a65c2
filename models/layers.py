"""Building blocks that several modules share."""

from collections.abc import Sequence

from torch import nn


def feed_forward(inputs: int, hidden: Sequence[int], outputs: int, dropout: float = 0.0) -> nn.Sequential:
    """Linear, GELU, dropout for each hidden width, then a plain linear layer: [..., inputs] -> [..., outputs]."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.GELU(), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def start_at_zero(network: nn.Sequential) -> nn.Sequential:
    """Zero the last linear layer, so that the network answers 0 until it has learned something."""
    last = network[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return network

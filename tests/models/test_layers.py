import pytest
import torch
from torch import nn

from models.layers import HiddenLinear, feed_forward


def test_bfloat16_products_are_for_training_alone_and_answer_in_float32() -> None:
    torch.manual_seed(0)
    layer, rows = HiddenLinear(64, 32), torch.randn(16, 64)
    exact = layer(rows)
    layer.short_products = True
    rounded = layer(rows)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, atol=0.02, rtol=0.02)
    rounded.square().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.dtype == torch.float32
    assert torch.equal(layer.eval()(rows), exact)


@pytest.mark.parametrize("hidden", [(), (8,), (8, 4)])
def test_the_last_layer_of_a_network_is_never_rounded(hidden: tuple[int, ...]) -> None:
    network = feed_forward(6, hidden, 2)
    assert type(network[-1]) is nn.Linear
    assert sum(isinstance(layer, HiddenLinear) for layer in network) == len(hidden)

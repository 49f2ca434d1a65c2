import pytest
import torch

from models.position import PositionBias
from prectr.contracts.model_config import PositionConfig


@pytest.mark.parametrize("form", ["additive", "examination"])
def test_first_position_is_free_and_later_ones_start_at_one_over_position(form: str) -> None:
    bias = PositionBias(PositionConfig(form=form), 10)  # type: ignore[arg-type]
    logit = torch.tensor([-2.0, -2.0, -2.0, 15.0])
    position = torch.tensor([1, 4, 99, 1])
    shifted = bias(logit, position)
    expected = torch.tensor([1.0, 0.25, 0.1, 1.0])
    assert torch.allclose(bias.position_logit(position).exp(), expected, atol=1e-5)
    assert torch.allclose(shifted[[0, 3]], logit[[0, 3]], atol=1e-4)
    if form == "examination":
        assert torch.allclose(shifted[:3].sigmoid(), logit[:3].sigmoid() * expected[:3], atol=1e-6)
    else:
        assert torch.allclose(shifted[:3], logit[:3] + expected[:3].log())


def test_examination_gradient_reaches_the_position_only_where_it_is_free() -> None:
    bias = PositionBias(PositionConfig(form="examination"), 3)
    bias(torch.zeros(2), torch.tensor([1, 3])).sum().backward()
    assert bias.bias.grad is not None
    assert bias.bias.grad[0] == 0
    assert bias.bias.grad[1] > 0

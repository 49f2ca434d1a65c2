"""Layers that models share: feed-forward networks, field embeddings, fusion and position bias."""

import math

import pytest
import torch
from torch import nn

from models.features import FieldEmbeddings
from models.fusion import expected_level, fuse
from models.incentive import apply_incentive
from models.layers import HiddenLinear, feed_forward
from models.position import PositionBias
from prectr.contracts.model_config import PositionConfig


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


def test_fields_do_not_share_rows_and_outsiders_are_unknown() -> None:
    fields = FieldEmbeddings([3, 2], 1)
    with torch.no_grad():
        fields.table.copy_(torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0]]))
    ids = torch.tensor([[2, 1], [3, 2], [-1, 0]])
    assert fields(ids).tolist() == [[2.0, 11.0], [0.0, 10.0], [0.0, 10.0]]
    assert fields.rows_of(1).tolist() == [[10.0], [11.0]]
    fields.reduce = "sum"
    assert fields(ids).tolist() == [[13.0], [10.0], [10.0]]
    assert fields(ids[:, :1]).tolist() == [[2.0], [0.0], [0.0]]  # fewer columns: the first fields


def test_sum_of_tables_equals_projected_concatenation() -> None:
    summed = FieldEmbeddings([4, 3], 5, "sum")
    tables = [torch.randn(4, 2), torch.randn(3, 2)]
    projection = torch.randn(4, 5)  # W, over the concatenation of two embeddings of width 2
    with torch.no_grad():
        summed.table.copy_(torch.cat([tables[0] @ projection[:2], tables[1] @ projection[2:]]))
    ids = torch.tensor([[[3, 1], [0, 2]], [[1, 1], [2, 0]]])
    concatenated = torch.cat([tables[0][ids[..., 0]], tables[1][ids[..., 1]]], -1)
    assert torch.allclose(summed(ids), concatenated @ projection, atol=1e-6)


def test_fusion_is_the_mixture_of_clicks_over_levels() -> None:
    p = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    c = torch.tensor([[0.01, 0.05, 0.2, 0.5]])
    # 0.001 + 0.01 + 0.06 + 0.2 = 0.271
    assert torch.allclose(fuse(p.log(), c.logit()).sigmoid(), torch.tensor([0.271]), atol=1e-6)
    assert torch.allclose(expected_level(p), torch.tensor([2.0 / 3]))


def test_fusion_stays_finite_where_probabilities_round_to_zero_or_one() -> None:
    level_logits = torch.tensor([[0.0, -200.0, -200.0, -200.0]])
    click = torch.tensor([[-150.0, 0.0, 0.0, 150.0]])
    assert torch.allclose(fuse(level_logits, click), torch.tensor([-150.0]), atol=1e-3)


def test_incentive_enters_the_odds_or_each_level() -> None:
    p = torch.tensor([[0.25, 0.25, 0.25, 0.25]])
    c = torch.full((1, 4), 0.5)
    logit, levels, tau = apply_incentive(p.log(), c.logit(), torch.tensor([math.log(3)]))
    assert torch.allclose(logit.sigmoid(), torch.tensor([0.75]))  # odds 1 x 3
    assert torch.equal(levels, c.logit())
    assert torch.allclose(tau, torch.tensor([math.log(3)]))

    per_level = torch.tensor([[0.0, 0.0, math.log(3), -math.log(3)]])
    logit, levels, tau = apply_incentive(p.log(), c.logit(), per_level)
    assert torch.allclose(levels.sigmoid(), torch.tensor([[0.5, 0.5, 0.75, 0.25]]))
    assert torch.allclose(logit.sigmoid(), torch.tensor([0.5]))
    assert torch.allclose(tau, torch.tensor([0.0]), atol=1e-6)


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

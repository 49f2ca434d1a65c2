"""Parts of rankers together: masks, stop-gradients, consistency terms, and the loss as a sum of its parts."""

import math

import pytest
import torch

from models.prectr import level_divergence, order_hinge
from models.registry import build_ranker
from prectr.contracts.model_config import ConsistencyConfig, ExposureConfig, FusionConfig, IncentiveConfig, ModelConfig


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(incentive=IncentiveConfig(attention=True)),
        ModelConfig(incentive=IncentiveConfig(attention=True, form="level", combine="sum")),
        ModelConfig(name="prectr"),
        ModelConfig(name="din"),
    ],
    ids=["odds, gate", "level, sum", "v1", "din"],
)
def test_what_stands_at_a_masked_place_is_not_read(sizes, encoder, make_batch, config) -> None:
    ranker = build_ranker(config, sizes, encoder).eval()
    with torch.no_grad():  # away from the start, where much is zero
        for parameter in ranker.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    inputs, text, _ = make_batch(6)
    plain = ranker(inputs, text)
    sides = ("user", "query") if config.name == "prectr-v2" else ("user",)
    for side in sides:
        behaviours, mask = getattr(inputs, f"{side}_behaviours"), getattr(inputs, f"{side}_mask").unsqueeze(-1)
        other = (behaviours + 1) % 3
        masked = inputs._replace(**{f"{side}_behaviours": torch.where(mask, behaviours, other)})
        for one, another in zip(plain, ranker(masked, text), strict=True):
            assert torch.equal(one, another)
        real = inputs._replace(**{f"{side}_behaviours": torch.where(mask, other, behaviours)})
        assert not torch.equal(plain.click_logit, ranker(real, text).click_logit)


def test_the_base_reads_the_expected_level_without_moving_it(sizes, encoder, make_batch) -> None:
    """With every c_i alike the fusion does not depend on p, so all that could move p is the expected level."""
    config = ModelConfig(fusion=FusionConfig(hidden=()), incentive=IncentiveConfig(form="off"), debias=False)
    ranker = build_ranker(config, sizes, encoder)
    inputs, text, _ = make_batch(5)
    layer = ranker.base.network[-1]
    with torch.no_grad():
        layer.weight.copy_(layer.weight[:1].expand_as(layer.weight))
    output = ranker(inputs, text)
    assert torch.allclose(output.level_click_logits, output.click_logit.unsqueeze(-1).expand(-1, 4), atol=1e-5)
    output.click_logit.sum().backward()
    assert layer.weight.grad.abs().max() > 0
    assert all(p.grad is None or p.grad.abs().max() < 1e-5 for p in ranker.relevance.parameters())


def test_the_loss_is_the_weighted_sum_of_its_switched_parts(sizes, encoder, make_batch) -> None:
    inputs, text, labels = make_batch(32)
    labels = labels._replace(level_weight=torch.rand(32))
    consistency = {"level_weight": 0.5, "order_weight": 3.0, "order_margin": 0.2}
    for unit in ("probability", "logit"):
        config = ModelConfig(
            consistency=ConsistencyConfig(**consistency, order_unit=unit),
            exposure=ExposureConfig(weight=7.0, truncation=False, tolerance_gate=False, margin=3.0),
        )
        ranker = build_ranker(config, sizes, encoder)
        output = ranker(inputs, text)
        parts = ranker.loss(output, inputs, text, labels)
        level = level_divergence(output.level_logits, labels.level_soft, labels.level_known, labels.level_weight)
        assert parts["level"].item() == pytest.approx(level.item())
        assert parts["order"].item() == pytest.approx(order_hinge(output.level_click_logits, 0.2, unit).item())
        assert min(parts["order"].item(), parts["debias"].item()) > 0
        whole = parts["click"] + 0.5 * parts["level"] + 3 * parts["order"] + 7 * parts["debias"]
        assert parts["total"].item() == pytest.approx(whole.item(), rel=1e-5)
    without = [
        ModelConfig(debias=False),
        ModelConfig(exposure=ExposureConfig(weight=0.0)),
        ModelConfig(),  # its weight is measured before a training
        ModelConfig(name="prectr"),
    ]
    for config in without:
        parts = build_ranker(config, sizes, encoder).loss(output, inputs, text, labels)
        assert set(parts) == {"total", "click", "level", "order"}


def test_level_term_is_cross_entropy_for_gold_and_zero_at_agreement() -> None:
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25], [0.7, 0.1, 0.1, 0.1]]).log()
    soft = torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0]])
    known = torch.tensor([True, True, False])
    # (-log 0.4 + 0) / 2, the third row unknown
    assert level_divergence(logits, soft, known).item() == pytest.approx(-math.log(0.4) / 2, abs=1e-6)
    weighted = level_divergence(logits, soft, known, torch.tensor([0.3, 1.0, 9.0]))
    assert weighted.item() == pytest.approx(-0.3 * math.log(0.4) / 2, abs=1e-6)  # no row counts for another
    assert level_divergence(logits, soft, torch.zeros(3, dtype=torch.bool)).item() == 0


def test_level_term_has_a_finite_gradient_for_one_hot_labels() -> None:
    logits = torch.randn(2, 4, requires_grad=True)
    soft = torch.eye(4)[:2]
    level_divergence(logits, soft, torch.tensor([True, True])).backward()
    assert logits.grad is not None
    assert torch.allclose(logits.grad, (logits.softmax(-1) - soft) / 2, atol=1e-6)


def test_order_hinge_by_hand() -> None:
    click = torch.tensor([[0.1, 0.3, 0.2, 0.5]])
    # pairs: max(0, .05 + .1 - .3) = 0, max(0, .05 + .3 - .2) = .15, max(0, .05 + .2 - .5) = 0
    assert order_hinge(click.logit(), 0.05, "probability").item() == pytest.approx(0.05)
    logits = torch.tensor([[0.0, -1.0, 1.0, 1.5]])
    # pairs with margin 1: 2, 0, 0.5
    assert order_hinge(logits, 1.0, "logit").item() == pytest.approx(2.5 / 3)

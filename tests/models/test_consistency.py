import math

import pytest
import torch

from models.prectr import level_divergence, order_hinge


def test_level_term_is_cross_entropy_for_gold_and_zero_at_agreement() -> None:
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25], [0.7, 0.1, 0.1, 0.1]]).log()
    soft = torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0]])
    known = torch.tensor([True, True, False])
    # (-log 0.4 + 0) / 2, the third row unknown
    assert level_divergence(logits, soft, known).item() == pytest.approx(-math.log(0.4) / 2, abs=1e-6)
    weighted = level_divergence(logits, soft, known, torch.tensor([3.0, 1.0, 9.0]))
    assert weighted.item() == pytest.approx(-3 * math.log(0.4) / 4, abs=1e-6)
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

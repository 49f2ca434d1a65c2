import math

import torch

from models.fusion import expected_level, fuse
from models.incentive import apply_incentive


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

"""Fusion of relevance and click probabilities [summary].

    P(click | x) = sum_i P(click | rsl = i, x) P(rsl = i | x) = sum_i c_i p_i

Computed on logarithms, which stays exact for probabilities near 0 and 1:

    logit P = log sum_i p_i c_i - log sum_i p_i (1 - c_i)

| symbol | variable | shape |
|---|---|---|
| p | softmax(level_logits) | [B, k] |
| c | sigmoid(level_click_logits) | [B, k] |
"""

import torch
from torch import Tensor
from torch.nn import functional


def fuse(level_logits: Tensor, level_click_logits: Tensor) -> Tensor:
    """Fuse level logits and level click logits: two [B, k] -> logit P [B].

    >>> level_logits = torch.tensor([[0.0, 0.0]])  # p = (1/2, 1/2)
    >>> click_logits = torch.tensor([[0.1, 0.5]]).logit()  # c = (0.1, 0.5)
    >>> round(fuse(level_logits, click_logits).sigmoid().item(), 4)
    0.3
    """
    log_level = functional.log_softmax(level_logits, -1)
    log_click = torch.logsumexp(log_level + functional.logsigmoid(level_click_logits), -1)
    log_no_click = torch.logsumexp(log_level + functional.logsigmoid(-level_click_logits), -1)
    return log_click - log_no_click


def expected_level(level_probabilities: Tensor) -> Tensor:
    """Expected level sum_i p_i i / (k - 1), in 0..1: [B, k] -> [B].

    >>> round(expected_level(torch.tensor([[0.0, 0.5, 0.0, 0.5]])).item(), 4)
    0.6667
    """
    levels = torch.linspace(0, 1, level_probabilities.shape[-1], device=level_probabilities.device)
    return (level_probabilities * levels).sum(-1)

"""Fusion of relevance and click [summary].

    P(click | x) = sum_i P(click | rsl = i, x) P(rsl = i | x) = sum_i c_i p_i

computed on logarithms: logit P = log sum_i p_i c_i - log sum_i p_i (1 - c_i), exact for probabilities near 0 and 1.

| symbol | variable | shape |
|---|---|---|
| p | softmax(level_logits) | [B, k] |
| c | sigmoid(level_click_logits) | [B, k] |
"""

import torch
from torch import Tensor
from torch.nn import functional


def fuse(level_logits: Tensor, level_click_logits: Tensor) -> Tensor:
    """Two [B, k] -> logit P [B]."""
    log_level = functional.log_softmax(level_logits, -1)
    log_click = torch.logsumexp(log_level + functional.logsigmoid(level_click_logits), -1)
    log_no_click = torch.logsumexp(log_level + functional.logsigmoid(-level_click_logits), -1)
    return log_click - log_no_click


def expected_level(level_probabilities: Tensor) -> Tensor:
    """sum_i p_i i / (k - 1) in 0..1: [B, k] -> [B]."""
    levels = torch.linspace(0, 1, level_probabilities.shape[-1], device=level_probabilities.device)
    return (level_probabilities * levels).sum(-1)

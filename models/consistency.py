"""Semantic consistency regularisation [paper, form ours]: a level keeps its meaning, and clicks respect its order.

    (A)  KL(q_rsl || p), which for a gold one-hot label is CE(y_rsl, p)
    (B)  mean_i max(0, m + c_i - c_{i+1})

| symbol | variable | shape |
|---|---|---|
| q_rsl | level_soft | [B, k] |
| p | softmax(level_logits) | [B, k] |
| c | sigmoid(level_click_logits) | [B, k] |
| m | margin | scalar |
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


def level_divergence(level_logits: Tensor, level_soft: Tensor, known: Tensor, weight: Tensor | None = None) -> Tensor:
    """(A), the weighted mean over rows whose level is known; 0 where none is. [B, k], [B, k], bool [B], [B] -> []."""
    log_level = functional.log_softmax(level_logits, -1)
    divergence = (torch.xlogy(level_soft, level_soft) - level_soft * log_level).sum(-1)
    weights = known.to(divergence.dtype) if weight is None else known * weight
    return (torch.where(known, divergence, 0.0) * weights).sum() / weights.sum().clamp(min=1e-6)


def order_hinge(level_click_logits: Tensor, margin: float, unit: Literal["probability", "logit"]) -> Tensor:
    """(B), the mean over rows and neighbouring levels: [B, k] -> []."""
    click = level_click_logits.sigmoid() if unit == "probability" else level_click_logits
    return functional.relu(margin + click[:, :-1] - click[:, 1:]).mean()

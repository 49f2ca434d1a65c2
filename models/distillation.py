"""Loss that distils a teacher's level distribution into the student encoder [ours].

    L_enc = a CE(y, p_S) + (1 - a) T^2 KL(q_T || p_T) + b MSE(margin_S, margin_T)

The KL compares both distributions at temperature T. A margin is the difference of the expected levels of two items of
one query. The MSE averages over all unordered pairs of items of one query in the batch that the teacher has both
labelled.

| symbol | variable | shape |
|---|---|---|
| y | gold, -1 missing | [P] |
| p_S | softmax(student_logits) | [P, k] |
| q | teacher_probabilities | [P, k] |
| a, T, b | label_weight, temperature, margin_weight | |
"""

import torch
from torch import Tensor
from torch.nn import functional

from prectr.contracts.model_config import DistillationLossConfig


def distillation_loss(
    student_logits: Tensor,
    gold: Tensor,
    teacher_probabilities: Tensor,
    teacher_known: Tensor,
    pair_query: Tensor,
    config: DistillationLossConfig,
) -> dict[str, Tensor]:
    """Loss of P pairs and its parts; each part is a mean over the pairs (or margins) that have it, 0 without any.

    Args:
        student_logits: float [P, k].
        gold: int64 [P], -1 where no judgment exists.
        teacher_probabilities: float [P, k]; ignored, but finite, where `teacher_known` is False.
        teacher_known: bool [P].
        pair_query: int64 [P], equal for pairs of one query.
        config: weights and temperature.

    Returns:
        Scalars: `total`, and before weighting `label` (CE), `teacher` (T^2 KL) and `margin` (MSE, in squared levels).
    """
    student_logits = student_logits.float()
    judged = gold >= 0
    label_errors = functional.cross_entropy(student_logits, gold.clamp(min=0), reduction="none")
    label = _mean_over(label_errors, judged)

    log_teacher = teacher_probabilities.clamp(min=1e-9).log()
    softened = functional.log_softmax(log_teacher / config.temperature, -1)
    student = functional.log_softmax(student_logits / config.temperature, -1)
    divergence = (softened.exp() * (softened - student)).sum(-1)
    teacher = config.temperature**2 * _mean_over(divergence, teacher_known)

    margin = _margin_error(student_logits, teacher_probabilities, teacher_known, pair_query)
    total = config.label_weight * label + (1 - config.label_weight) * teacher + config.margin_weight * margin
    return {"total": total, "label": label, "teacher": teacher, "margin": margin}


def _mean_over(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def _margin_error(student_logits: Tensor, teacher: Tensor, known: Tensor, pair_query: Tensor) -> Tensor:
    """MSE over in-query pairs in linear time: sum_{i<j} (r_i - r_j)^2 = n sum_i r_i^2 - (sum_i r_i)^2."""
    levels = torch.arange(student_logits.shape[-1], device=student_logits.device, dtype=student_logits.dtype)
    difference = student_logits.softmax(-1) @ levels - teacher.to(student_logits.dtype) @ levels
    residual = torch.where(known, difference, 0.0)
    queries, group = pair_query.unique(return_inverse=True)
    zeros = residual.new_zeros(len(queries))
    count = zeros.index_add(0, group, known.to(residual.dtype))
    total = zeros.index_add(0, group, residual)
    # Centre the residuals first: the difference of large sums would lose digits.
    centred = torch.where(known, residual - (total / count.clamp(min=1))[group], 0.0)
    squares = zeros.index_add(0, group, centred.square())
    pairs = (count * (count - 1) / 2).sum()
    return (count * squares).sum() / pairs.clamp(min=1)

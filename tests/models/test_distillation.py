import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.distillation import distillation_loss
from prectr.contracts.model_config import DistillationLossConfig


def test_parts_by_hand() -> None:
    teacher = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1], [0.0, 0.0, 0.0, 0.0]])
    student = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25], [0.1, 0.1, 0.1, 0.7]])
    gold = torch.tensor([-1, 0, 3])
    known = torch.tensor([True, True, False])
    query = torch.tensor([5, 5, 5])
    loss = distillation_loss(student.log(), gold, teacher, known, query, DistillationLossConfig(temperature=1.0))
    assert loss["label"].item() == pytest.approx(-(torch.tensor([0.25, 0.7]).log().mean().item()), abs=1e-6)
    divergence = [(t * (t / s).log()).sum() for t, s in zip(teacher[:2], student[:2], strict=True)]
    assert loss["teacher"].item() == pytest.approx(sum(divergence).item() / 2, abs=1e-6)
    # expected levels: teacher 2.0 and 0.6, student 1.0 and 1.5: margins 1.4 and -0.5
    assert loss["margin"].item() == pytest.approx(1.9**2, abs=1e-5)
    total = 0.3 * loss["label"] + 0.7 * loss["teacher"] + 0.5 * loss["margin"]
    assert loss["total"].item() == pytest.approx(total.item())


def test_agreement_costs_nothing_at_any_temperature() -> None:
    teacher = torch.randn(5, 4).softmax(-1)
    none = torch.full((5,), -1)
    config = DistillationLossConfig(temperature=3.0)
    loss = distillation_loss(teacher.log(), none, teacher, torch.ones(5, dtype=torch.bool), none, config)
    assert loss["total"].item() == pytest.approx(0.0, abs=1e-6)


def test_a_batch_without_labels_costs_nothing() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    none = torch.zeros(3, dtype=torch.bool)
    loss = distillation_loss(
        logits, torch.full((3,), -1), torch.zeros(3, 4), none, none.long(), DistillationLossConfig()
    )
    loss["total"].backward()
    assert loss["total"].item() == 0
    assert logits.grad is not None and torch.equal(logits.grad, torch.zeros(3, 4))


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=12), st.integers(0, 2**20))
@settings(max_examples=40, deadline=None)
def test_margin_error_equals_the_loop_over_pairs(rows: list[tuple[int, bool]], seed: int) -> None:
    torch.manual_seed(seed)
    student, teacher = torch.randn(len(rows), 4), torch.randn(len(rows), 4).softmax(-1)
    query, known = torch.tensor([row[0] for row in rows]), torch.tensor([row[1] for row in rows])
    levels = torch.arange(4.0)
    mine, theirs = student.softmax(-1) @ levels, teacher @ levels
    errors = [
        ((mine[i] - mine[j]) - (theirs[i] - theirs[j])) ** 2
        for i, j in itertools.combinations(range(len(rows)), 2)
        if rows[i][1] and rows[j][1] and rows[i][0] == rows[j][0]
    ]
    gold = torch.full((len(rows),), -1)
    loss = distillation_loss(student, gold, teacher, known, query, DistillationLossConfig())["margin"]
    assert loss.item() == pytest.approx(float(sum(errors)) / max(len(errors), 1), abs=1e-4)


def test_the_teacher_term_at_temperature_two_by_hand() -> None:
    # At T = 2 probabilities go as their square roots: 0.8, 0.2, 0.4, 0.4 over 1.8; a uniform student stays uniform.
    teacher = torch.tensor([[0.64, 0.04, 0.16, 0.16]])
    softened = [4 / 9, 1 / 9, 2 / 9, 2 / 9]
    divergence = sum(q * math.log(q / 0.25) for q in softened)
    none = torch.tensor([-1])
    config = DistillationLossConfig(temperature=2.0, label_weight=0.25)
    loss = distillation_loss(torch.zeros(1, 4), none, teacher, torch.tensor([True]), none, config)
    assert loss["teacher"].item() == pytest.approx(4 * divergence, abs=1e-6)
    assert loss["total"].item() == pytest.approx(0.75 * 4 * divergence, abs=1e-6)

import pytest
import torch

from models.rsl import RelevanceModule, look_up
from prectr.model_config import FusionConfig


def test_starts_at_the_looked_up_distribution_and_at_the_student_without_one(sizes, encoder) -> None:
    module = RelevanceModule(FusionConfig(), sizes)
    module.initialise_from(encoder)
    tokens = torch.tensor([[2, 9, 3, 7, 3], [2, 5, 3, 0, 0]])
    encoder.eval()
    text, student = encoder(tokens, torch.zeros_like(tokens), (tokens > 0).long())
    looked_up = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.0, 1.0]])
    lexical = torch.rand(2, 2)
    match = torch.cat([looked_up.log(), lexical], -1)  # a judgment: -inf for the other levels
    assert torch.allclose(module(text, match).softmax(-1), looked_up, atol=1e-4)
    missing = torch.cat([torch.zeros(2, 4), lexical], -1)
    assert torch.allclose(module(text, missing), student, atol=1e-5)


def test_judgments_with_zero_probabilities_keep_gradients_finite(sizes) -> None:
    module = RelevanceModule(FusionConfig(), sizes)
    match = torch.cat([torch.tensor([[0.0, 1.0, 0.0, 0.0]]).log(), torch.zeros(1, 2)], -1)
    module(torch.randn(1, 8), match).logsumexp(-1).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)


def test_four_zeros_are_no_look_up() -> None:
    match = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
    match[1].log_()
    known, logarithms = look_up(match)
    assert known.squeeze(-1).tolist() == [0.0, 1.0]
    assert logarithms[1].tolist() == pytest.approx(match[1].tolist())

import math

import pytest
import torch

from models.rsl import RelevanceModule, look_up
from prectr.contracts.model_config import FusionConfig


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


def test_level_logits_by_hand(sizes) -> None:
    module = RelevanceModule(FusionConfig(relevance_hidden=()), sizes)
    layer = module.residual[-1]
    assert isinstance(layer, torch.nn.Linear)
    with torch.no_grad():
        module.trust.fill_(0.25)
        module.head.weight.zero_()
        module.head.weight[[1, 2, 3], [1, 2, 3]] = torch.tensor([1.0, 2.0, 3.0])
        module.head.bias.copy_(torch.tensor([4.0, 0.0, 0.0, 0.0]))
        # Columns of the residual: 8 of the text, whether looked up, 4 probabilities, 2 lexical.
        layer.weight[[0, 1, 3], [8, 12, 13]] = torch.tensor([1.0, 10.0, 2.0])
    text = torch.arange(1.0, 9.0).unsqueeze(0)
    looked_up = torch.cat([torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log(), torch.tensor([[5.0, 6.0]])], -1)
    head = [4.0, 1 * 2.0, 2 * 3.0, 3 * 4.0]
    residual = [1.0, 10 * 0.4, 0.0, 2 * 5.0]
    expected = [0.25 * math.log(q) + 0.75 * z + r for q, z, r in zip((0.1, 0.2, 0.3, 0.4), head, residual, strict=True)]
    assert module(text, looked_up)[0].tolist() == pytest.approx(expected, abs=1e-5)
    missing = torch.tensor([[0.0, 0.0, 0.0, 0.0, 5.0, 6.0]])  # a = 0 where nothing was looked up
    assert module(text, missing)[0].tolist() == pytest.approx([4.0, 2.0, 6.0, 12.0 + 10.0], abs=1e-5)

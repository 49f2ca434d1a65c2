import math

import pytest
import torch

from models.registry import build_ranker
from models.rsl import RelevanceModule, look_up
from prectr.contracts.model_config import (
    FeatureSizes,
    Flag,
    FusionConfig,
    ModelConfig,
    RelevanceNumbers,
    Standardised,
)

NO_NUMBERS = torch.zeros(1, 3)
_NUMBER = Standardised(column=0, mean=0.0, deviation=1.0)


def with_sources(sizes: FeatureSizes) -> FeatureSizes:
    """Sizes whose numeric columns 1 and 2 say that levels are a judgment or a teacher's label."""
    numbers = RelevanceNumbers(
        judged=Flag(column=1, middle=0.5), taught=Flag(column=2, middle=0.5), numeric=(),
        tolerance_slope=(0.0,) * sizes.tolerance, curve=(0.2, 0.1, 0.03),
        **dict.fromkeys(("predictive", "above", "spread", "query_rate", "pair_rate", "pair_examined"), _NUMBER),
    )  # fmt: skip
    return sizes.model_copy(update={"relevance": numbers})


def test_starts_at_the_looked_up_distribution_and_at_the_student_without_one(sizes, encoder) -> None:
    module = RelevanceModule(FusionConfig(), sizes)
    module.initialise_from(encoder)
    tokens = torch.tensor([[2, 9, 3, 7, 3], [2, 5, 3, 0, 0]])
    encoder.eval()
    text, student = encoder(tokens, torch.zeros_like(tokens), (tokens > 0).long())
    looked_up = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.0, 1.0]])
    lexical = torch.rand(2, 2)
    match = torch.cat([looked_up.log(), lexical], -1)  # a judgment: -inf for the other levels
    assert torch.allclose(module(text, match, NO_NUMBERS).softmax(-1), looked_up, atol=1e-4)
    missing = torch.cat([torch.zeros(2, 4), lexical], -1)
    assert torch.allclose(module(text, missing, NO_NUMBERS), student, atol=1e-5)


def test_judgments_with_zero_probabilities_keep_gradients_finite(sizes) -> None:
    module = RelevanceModule(FusionConfig(), sizes)
    match = torch.cat([torch.tensor([[0.0, 1.0, 0.0, 0.0]]).log(), torch.zeros(1, 2)], -1)
    module(torch.randn(1, 8), match, NO_NUMBERS).logsumexp(-1).sum().backward()
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
        module.trust.fill_(0.25)  # without sources, the first of three is that of all rows
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
    assert module(text, looked_up, NO_NUMBERS)[0].tolist() == pytest.approx(expected, abs=1e-5)
    missing = torch.tensor([[0.0, 0.0, 0.0, 0.0, 5.0, 6.0]])  # a = 0 where nothing was looked up
    assert module(text, missing, NO_NUMBERS)[0].tolist() == pytest.approx([4.0, 2.0, 6.0, 12.0 + 10.0], abs=1e-5)


def test_each_source_has_its_trust_and_the_head_the_rest(sizes) -> None:
    module = RelevanceModule(FusionConfig(trust=(1.0, 0.75, 0.25)), with_sources(sizes))
    text = torch.randn(3, 8)
    levels = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    match = torch.cat([levels.expand(3, 4), torch.rand(3, 2)], -1)
    numeric = torch.tensor([[9.0, 1.0, 0.0], [9.0, 0.0, 1.0], [9.0, 0.0, 0.0]])  # judgment, teacher, encoder
    trust = torch.tensor([[1.0], [0.75], [0.25]])
    expected = trust * levels + (1 - trust) * module.head(text)
    assert torch.allclose(module(text, match, numeric), expected, atol=1e-6)


def test_clicks_move_the_head_on_levels_of_the_encoder_but_not_on_judgments(sizes, encoder, make_batch) -> None:
    """With all trust in the look-up the head would have no gradient, and the module would not train."""
    ranker = build_ranker(ModelConfig(consistency={"level_weight": 0.0}), with_sources(sizes), encoder)
    inputs, text, labels = make_batch(16)
    numeric = torch.zeros(16, 3)
    gradients = []
    for judged in (0.0, 1.0):
        numeric[:, 1] = judged
        ranker.zero_grad()
        one = inputs._replace(numeric=numeric.clone())
        ranker.loss(ranker(one, text), one, text, labels)["click"].backward()
        gradients.append(ranker.relevance.head.weight.grad.abs().max().item())
    assert gradients[0] > 1e-6
    assert gradients[1] == 0.0

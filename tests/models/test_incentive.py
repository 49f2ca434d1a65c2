import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.incentive import Incentive, TargetAttention
from prectr.model_config import IncentiveConfig


def _straightforward(attention: TargetAttention, target: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Attention of one target over its real tokens, projections applied to every token."""
    answers = []
    query = attention.query(target).view(attention.heads, -1)
    for head in range(attention.heads):
        keys, values = tokens @ attention.key[head].T, tokens @ attention.value[head].T
        weights = (keys @ query[head] / math.sqrt(len(query[head]))).softmax(0)
        answers.append(weights @ values)
    return attention.output(torch.cat(answers))


def test_attention_equals_the_straightforward_form_and_null_when_empty() -> None:
    attention = TargetAttention(8, 2)
    target, tokens = torch.randn(4, 8), torch.randn(4, 5, 8)
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)
    answer = attention(target, tokens, mask)
    for row in range(3):
        expected = _straightforward(attention, target[row], tokens[row][mask[row]])
        assert torch.allclose(answer[row], expected, atol=1e-5)
    assert torch.equal(answer[3], attention.null)


def test_empty_sequences_have_finite_gradients() -> None:
    attention = TargetAttention(8, 2)
    tokens = torch.randn(2, 3, 8, requires_grad=True)
    attention(torch.randn(2, 8), tokens, torch.zeros(2, 3, dtype=torch.bool)).sum().backward()
    assert tokens.grad is not None
    assert torch.equal(tokens.grad, torch.zeros_like(tokens))
    assert all(torch.isfinite(p.grad).all() for p in attention.parameters() if p.grad is not None)


@given(st.integers(1, 6), st.integers(0, 12), st.integers(0, 2**20))
@settings(max_examples=25, deadline=None)
def test_padding_never_changes_attention(length: int, padding: int, seed: int) -> None:
    torch.manual_seed(seed)
    attention = TargetAttention(8, 2)
    target, tokens = torch.randn(3, 8), torch.randn(3, length, 8)
    mask = torch.rand(3, length) < 0.5
    padded = torch.cat([tokens, torch.randn(3, padding, 8) * 100], 1)
    padded_mask = torch.cat([mask, torch.zeros(3, padding, dtype=torch.bool)], 1)
    assert torch.allclose(attention(target, tokens, mask), attention(target, padded, padded_mask), atol=1e-5)


@pytest.mark.parametrize("form", ["odds", "level"])
@pytest.mark.parametrize("experts", [(2, 2), (1, 3)])
@pytest.mark.parametrize("across_users", [True, False])
def test_tau_starts_near_zero_and_can_take_both_signs(sizes, make_batch, form, experts, across_users) -> None:
    config = IncentiveConfig(attention=True, form=form, positive_experts=experts[0], negative_experts=experts[1])
    incentive = Incentive(config, sizes, across_users)
    inputs, _, _ = make_batch(64)
    probabilities = inputs.match[:, :4].exp()
    tau = incentive(inputs, probabilities)
    assert tau.shape == ((64, 4) if form == "level" else (64,))
    assert tau.abs().max() < 0.1
    assert tau.abs().max() > 0
    with torch.no_grad():
        incentive.last_bias[: experts[0]] = 5.0
    assert (incentive(inputs, probabilities) > 1).all()
    with torch.no_grad():
        incentive.last_bias[: experts[0]] = -5.0
        incentive.last_bias[experts[0] :] = 5.0
    assert (incentive(inputs, probabilities) < -1).all()


def test_gate_and_sum_differ_and_v1_does_not_read_the_query_side(sizes, make_batch) -> None:
    inputs, _, _ = make_batch(8)
    probabilities = inputs.match[:, :4].exp()
    gate = Incentive(IncentiveConfig(combine="gate", attention=True), sizes, across_users=True)
    literal = Incentive(IncentiveConfig(combine="sum", attention=True), sizes, across_users=True)
    literal.load_state_dict(gate.state_dict())
    assert not torch.equal(gate(inputs, probabilities), literal(inputs, probabilities))

    own = Incentive(IncentiveConfig(attention=True), sizes, across_users=False)
    other = inputs._replace(
        query_behaviours=inputs.query_behaviours * 0,
        query_mask=~inputs.query_mask,
        query_preference=inputs.query_preference + 1,
    )
    assert torch.equal(own(inputs, probabilities), own(other, probabilities))
    assert not torch.equal(gate(inputs, probabilities), gate(other, probabilities))


def test_tau_reads_the_level_without_moving_it(sizes, make_batch) -> None:
    inputs, _, _ = make_batch(4)
    incentive = Incentive(IncentiveConfig(attention=True), sizes, across_users=True)
    probabilities = inputs.match[:, :4].exp().requires_grad_()
    tau = incentive(inputs, probabilities)
    assert not torch.equal(tau, incentive(inputs, probabilities.flip(-1)))
    tau.sum().backward()
    assert probabilities.grad is None

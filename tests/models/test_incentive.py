import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.incentive import Incentive, TargetAttention
from prectr.contracts.model_config import IncentiveConfig


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


def _experts_at(incentive: Incentive, answers: list[float]) -> None:
    """Make each expert answer a constant: softplus(log(e^x - 1)) = x."""
    with torch.no_grad():
        incentive.choice.weight.zero_()
        incentive.last.zero_()
        incentive.last_bias.copy_(torch.tensor(answers).expm1().log().unsqueeze(-1))


@pytest.mark.parametrize(
    ("positive", "answers", "expected"),
    [(2, [1.0, 2.0, 3.0, 5.0], (1 + 2 - 3 - 5) / 4), (1, [4.0, 1.0, 2.0, 3.0], 4 / 2 - (1 + 2 + 3) / 6)],
)
def test_tau_sums_signed_experts_by_hand(sizes, make_batch, positive, answers, expected) -> None:
    config = IncentiveConfig(positive_experts=positive, negative_experts=4 - positive)
    incentive = Incentive(config, sizes, across_users=True)
    _experts_at(incentive, answers)
    inputs, _, _ = make_batch(3)
    assert incentive(inputs, inputs.match[:, :4].exp()).tolist() == pytest.approx([expected] * 3, abs=1e-5)


@pytest.mark.parametrize("attention", [True, False])
def test_gate_and_sum_of_empty_histories_by_hand(sizes, make_batch, attention) -> None:
    """The learned null vectors, mixed 3 to 1 by a gate of log 3, or added."""
    inputs, _, _ = make_batch(2)
    inputs = inputs._replace(
        user_mask=torch.zeros_like(inputs.user_mask), query_mask=torch.zeros_like(inputs.query_mask)
    )
    for combine, parts in (("gate", (0.75, 0.25)), ("sum", (1.0, 1.0))):
        config = IncentiveConfig(combine=combine, attention=attention, width=2, heads=1)
        incentive = Incentive(config, sizes, across_users=True)
        numbers = incentive.query_numbers[-1]
        assert isinstance(numbers, torch.nn.Linear)
        with torch.no_grad():
            incentive.gate.weight.zero_()
            incentive.gate.bias.fill_(math.log(3))
            numbers.weight.zero_()
            numbers.bias.copy_(torch.tensor([10.0, 20.0]))
            incentive.user_attention.null.copy_(torch.tensor([4.0, 8.0]))
            incentive.query_attention.null.copy_(torch.tensor([-2.0, 0.0]))
        seen = []
        incentive._experts = lambda summary, *_, seen=seen: seen.append(summary) or summary[:, 0]  # type: ignore[method-assign]
        incentive(inputs, inputs.match[:, :4].exp())
        # r_user = (4, 8); r_query = null + MLP(g_q) = (8, 20)
        assert seen[0].tolist() == [pytest.approx([4 * parts[0] + 8 * parts[1], 8 * parts[0] + 20 * parts[1]])] * 2


@pytest.mark.parametrize("combine", ["gate", "sum"])
@pytest.mark.parametrize("form", ["odds", "level"])
def test_tau_is_the_equation_written_out_for_one_row(sizes, make_batch, form, combine) -> None:
    incentive = Incentive(
        IncentiveConfig(attention=True, form=form, combine=combine, width=8, hidden=3), sizes, across_users=True
    )
    with torch.no_grad():  # away from the start, where much is near zero
        for parameter in incentive.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    inputs, _, _ = make_batch(2, 4, 3)
    inputs = inputs._replace(
        user_mask=torch.tensor([[True, False, True, True]] * 2), query_mask=torch.tensor([[False, True, True]] * 2)
    )
    p = inputs.match[:, :4].exp()
    fields = [*sizes.behaviour.values(), sizes.user_group]
    tables = incentive.fields.table.split(fields)

    def embed(ids: torch.Tensor) -> torch.Tensor:
        return torch.stack([sum(tables[f][i] for f, i in enumerate(row.tolist())) for row in ids])

    for row, tau in enumerate(incentive(inputs, p)):
        levels = sum(p[row, level] * tables[4][level + 1] for level in range(4))
        target = incentive.target(embed(inputs.target[row : row + 1])[0] + levels)
        user = _straightforward(
            incentive.user_attention, target, embed(inputs.user_behaviours[row][inputs.user_mask[row]])
        )
        across = embed(inputs.query_behaviours[row][inputs.query_mask[row]])
        query = _straightforward(incentive.query_attention, target, across)
        query = query + incentive.query_numbers(inputs.query_preference[row])
        counts = inputs.history_counts[row]
        share = incentive.gate(torch.cat([user, query, counts])).sigmoid()
        summary = user + query if combine == "sum" else share * user + (1 - share) * query
        choice = incentive.choice(torch.cat([summary, target, counts])).exp()
        hidden = torch.nn.functional.gelu(incentive.hidden(torch.cat([summary, target]))).split(3)
        expected = 0
        for expert, sign in enumerate((1, 1, -1, -1)):
            answer = hidden[expert] @ incentive.last[expert] + incentive.last_bias[expert]
            expected = expected + choice[expert] / choice.sum() * sign * (1 + answer.exp()).log()
        assert torch.allclose(tau, expected if form == "level" else expected[0], atol=1e-5)


def test_without_attention_no_behaviour_is_read(sizes, make_batch) -> None:
    inputs, _, _ = make_batch(4)
    p = inputs.match[:, :4].exp()
    for attention, same in ((False, True), (True, False)):
        incentive = Incentive(IncentiveConfig(attention=attention), sizes, across_users=True)
        for side in ("user", "query"):
            changed = inputs._replace(
                **{
                    f"{side}_behaviours": getattr(inputs, f"{side}_behaviours") * 0,
                    f"{side}_mask": torch.ones_like(getattr(inputs, f"{side}_mask")),
                }
            )
            assert torch.equal(incentive(inputs, p), incentive(changed, p)) == same
        assert not torch.equal(incentive(inputs, p), incentive(inputs._replace(target=inputs.target * 0), p))

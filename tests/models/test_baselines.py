"""The baselines against numbers worked out by hand or by loops; what holds for every ranker is in `test_rankers`."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from models.baselines.daian import Daian
from models.baselines.dnn import Dnn
from models.baselines.lr import LogisticRegression
from models.baselines.sukd import Sukd, click_divergence
from models.baselines.xdeep_fm import CompressedInteraction, XDeepFM
from models.registry import build_ranker
from prectr.contracts.model_config import BaselineConfig, ModelConfig


def built(name, sizes, encoder, **baseline):
    return build_ranker(ModelConfig(name=name, baseline=BaselineConfig(**baseline)), sizes, encoder)


@pytest.fixture
def one_row(make_batch):
    """Table rows 2 and 6 + 1 = 7; numbers 1, 2, 0."""
    inputs, text, _ = make_batch(1)
    return inputs._replace(categorical=torch.tensor([[2, 1]]), numeric=torch.tensor([[1.0, 2.0, 0.0]])), text


def test_lr_by_hand(sizes, encoder, one_row) -> None:
    ranker = built("lr", sizes, encoder)
    assert isinstance(ranker, LogisticRegression)
    with torch.no_grad():
        ranker.fields.table.copy_(torch.arange(9.0).unsqueeze(-1))
        ranker.numbers.weight.copy_(torch.tensor([[1.0, 0.5, 9.0]]))
        ranker.numbers.bias.fill_(0.25)
    assert ranker(*one_row).click_logit.item() == pytest.approx(2 + 7 + 1 + 1 + 0.25)


def test_dnn_by_hand(sizes, encoder, one_row) -> None:
    ranker = built("dnn", sizes, encoder, hidden=(2,), embedding=1)
    assert isinstance(ranker, Dnn)
    with torch.no_grad():
        ranker.fields.table.copy_(torch.arange(9.0).unsqueeze(-1))
        ranker.deep[0].weight.copy_(torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.0], [0.0, -100.0, 0.0, 0.0, 0.0]]))
        ranker.deep[0].bias.copy_(torch.tensor([16.0, 0.0]))
        ranker.deep[-1].weight.copy_(torch.tensor([[3.0, 5.0]]))
        ranker.deep[-1].bias.fill_(0.5)
    # hidden: 2 + 2 + 16 = 20 and -700; GELU leaves the one as it is and makes the other 0
    assert ranker(*one_row).click_logit.item() == pytest.approx(3 * 20 + 0.5, abs=1e-4)


def test_xdeepfm_by_hand(sizes, encoder, one_row) -> None:
    ranker = built("xdeepfm", sizes, encoder, hidden=(), embedding=2, interaction=(1, 2))
    assert isinstance(ranker, XDeepFM)
    with torch.no_grad():
        ranker.linear_fields.table.copy_(torch.arange(9.0).unsqueeze(-1))
        ranker.linear_numbers.weight.copy_(torch.tensor([[1.0, 0.5, 9.0]]))
        ranker.linear_numbers.bias.fill_(0.25)
        ranker.fields.table.zero_()
        ranker.fields.table[2], ranker.fields.table[7] = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0])
        ranker.number_vectors.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]]))
        first, second = ranker.interaction.layers
        first.weight.zero_()
        first.weight[0, 0 * 5 + 1] = 1.0  # e_1 * e_2 = (3, -2)
        first.weight[0, 3 * 5 + 3] = 0.5  # (0, 4) * (0, 4) / 2 = (0, 8)
        second.weight.copy_(torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 10.0, 0.0, 1.0]]))
        ranker.interaction.last.weight.copy_(torch.tensor([[2.0, 1.0, 0.1]]))
        ranker.deep[0].weight.zero_()
        ranker.deep[0].bias.fill_(10.0)
    # X^1 = (3, 6), p 9. X^2 = (3, 6) * (1, 2) = (3, 12), p 15; (3, 6) * (1, 0) * 10 = (30, 0), p 30
    assert ranker(*one_row).click_logit.item() == pytest.approx(11.25 + 18 + 15 + 3 + 10, abs=1e-4)


def test_compressed_interaction_is_its_definition() -> None:
    rows, width, layers = 3, 2, (2, 4)
    network = CompressedInteraction(rows, layers)
    given_rows = torch.randn(5, width, rows)
    first = interactions = given_rows.numpy().transpose(0, 2, 1)
    pooled = []
    for layer, size in zip(network.layers, layers, strict=True):
        weight = layer.weight.detach().numpy().reshape(size, interactions.shape[1], rows)
        after = np.zeros((5, size, width))
        for h, i, j in np.ndindex(weight.shape):
            after[:, h] += weight[h, i, j] * interactions[:, i] * first[:, j]
        pooled.append(after.sum(2))
        interactions = after
    expected = np.concatenate(pooled, 1) @ network.last.weight.detach().numpy()[0]
    np.testing.assert_allclose(network(given_rows).detach().numpy()[:, 0], expected, atol=1e-6)


def test_sukd_by_hand(sizes, encoder, one_row) -> None:
    ranker = built("sukd", sizes, encoder, hidden=(), embedding=1)
    assert isinstance(ranker, Sukd)
    inputs, text = one_row
    with torch.no_grad():
        ranker.fields.table.copy_(torch.arange(9.0).unsqueeze(-1))
        ranker.light_language.weight.zero_()
        ranker.light_language.weight[0, 3] = 2.0
        ranker.light_language.bias.fill_(1.0)
        ranker.deep[0].weight.copy_(torch.tensor([[1.0, -1.0, 0.0, 1.0, 0.0, 10.0]]))
        ranker.deep[0].bias.fill_(0.5)
    text[0, 3] = 0.25
    assert ranker(inputs, text).click_logit.item() == pytest.approx(2 - 7 + 2 + 10 * 1.5 + 0.5, abs=1e-5)


def test_sukd_losses_by_hand(sizes, encoder, make_batch) -> None:
    ranker = built("sukd", sizes, encoder, hidden=(), embedding=1)
    inputs, text, labels = make_batch(3)
    known = torch.cat([ranker.plain_fields.table[inputs.categorical + torch.tensor([0, 6]), 0], inputs.numeric], 1)

    def linear(layer, columns):
        return columns.numpy() @ layer.weight.detach().numpy()[0] + layer.bias.item()

    def click(logit):
        logit = logit + ranker.position_logit(labels.position).detach().numpy()
        return np.mean(np.log1p(np.exp(logit)) - labels.click.numpy() * logit)

    with torch.no_grad():
        known = known.detach()
        heavy, light = linear(ranker.heavy_language[0], text), linear(ranker.light_language, text)
        heavy = (heavy - heavy.mean()) / np.sqrt(heavy.var() + 1e-5)
        plain = linear(ranker.plain[0], known)
        teacher = linear(ranker.teacher[0], torch.cat([known, torch.tensor(heavy).unsqueeze(1)], 1))
        student = linear(ranker.student[0], torch.cat([known, torch.tensor(light).unsqueeze(1)], 1))
    y, q = 1 / (1 + np.exp(-teacher)), 1 / (1 + np.exp(-student))
    wanted = {
        "plain": click(plain),
        "teacher": click(teacher),
        "student": click(student),
        "language": np.mean((heavy - light) ** 2),
        "agreement": np.mean(y * np.log(y / q) + (1 - y) * np.log((1 - y) / (1 - q))),
    }
    output = ranker(inputs, text)
    wanted["click"] = click(output.click_logit.detach().numpy())
    found = {name: part.item() for name, part in ranker.loss(output, inputs, text, labels).items()}
    assert found == pytest.approx({"total": sum(wanted.values()), **wanted}, abs=1e-5)


def moved_by(ranker, loss) -> set[str]:
    """Which parts of a ranker one loss moves."""
    ranker.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {
        name.split(".")[0]
        for name, parameter in ranker.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().sum() > 0
    } - {"position"}


def test_no_step_of_sukd_moves_another(sizes, encoder, make_batch) -> None:
    ranker = built("sukd", sizes, encoder)
    inputs, _, labels = make_batch(16)
    tokens = torch.randint(1, 40, (16, 5))
    text, _ = encoder(tokens, torch.zeros_like(tokens), torch.ones_like(tokens))
    parts = ranker.loss(ranker(inputs, text), inputs, text, labels)
    assert {name: moved_by(ranker, part) for name, part in parts.items() if name != "total"} == {
        "click": {"fields", "deep"},
        "plain": {"plain_fields", "plain"},
        "teacher": {"teacher", "heavy_language", "encoder"},
        "student": {"student", "light_language"},
        "language": {"light_language"},
        "agreement": {"student", "light_language"},
    }


def test_a_batch_of_one_row_trains_sukd(sizes, encoder, make_batch) -> None:
    ranker = built("sukd", sizes, encoder)
    inputs, text, labels = make_batch(1)
    ranker.loss(ranker(inputs, text), inputs, text, labels)["total"].backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in ranker.parameters())


def test_divergence_of_click_probabilities() -> None:
    teacher_logit, logit = torch.tensor([0.0, 30.0]), torch.tensor([np.log(3.0), 30.0])
    # 1/2 log(1/2 / 3/4) + 1/2 log(1/2 / 1/4) = log 2 - log(3) / 2, and 0
    assert click_divergence(teacher_logit, logit).item() == pytest.approx((np.log(2) - np.log(3) / 2) / 2, abs=1e-6)


def cosine(one, other) -> float:
    return float(one @ other / np.sqrt((one @ one) * (other @ other)))


def bins(similarity: float) -> np.ndarray:
    """Of 3 bins: centres -1, 0, 1, radius 1/2."""
    weight = np.exp(-2.0 * (similarity - np.array([-1.0, 0.0, 1.0])) ** 2)
    return weight / weight.sum()


def test_daian_is_its_definition(sizes, encoder, make_batch) -> None:
    """Row by row and behaviour by behaviour, in numpy."""
    ranker = built("daian", sizes, encoder, hidden=(), behaviour_width=4, similarity_bins=3, attention_hidden=())
    assert isinstance(ranker, Daian)
    inputs, text, labels = make_batch(6)
    inputs.user_mask[0] = False
    output = ranker(inputs, text)
    parts = ranker.loss(output, inputs, text, labels)
    has = {name: value.detach().double().numpy() for name, value in ranker.named_parameters()}

    def embedded(table, ids, cardinalities):
        starts = np.cumsum([0, *cardinalities])[:-1]
        return has[f"{table}.table"][ids.numpy() + starts].sum(0)

    fields = list(sizes.behaviour.values())
    logits, intents, similarities = [], [], []
    for row in range(6):
        query = has["queries.table"][inputs.target[row, 0]]
        seen = has["text.weight"] @ text[row].double().numpy() + has["text.bias"]
        share = 1 / (1 + np.exp(-(has["share.weight"][0] @ np.concatenate([query, seen]) + has["share.bias"][0])))

        def near(item, query=query, seen=seen, share=share):
            return share * cosine(query, item) + (1 - share) * cosine(seen, item)

        similarity = near(embedded("items", inputs.target[row, 1:], fields[1:4]))
        habit, count, mass, sums = np.zeros(3), 0, np.zeros(3), np.zeros((3, 4))
        for behaviour in inputs.user_behaviours[row][inputs.user_mask[row]]:
            item = embedded("items", behaviour[1:4], fields[1:4])
            habit, count = habit + bins(cosine(has["queries.table"][behaviour[0]], item)), count + 1
            mass += bins(near(item))
            sums += np.outer(bins(near(item)), embedded("behaviours", behaviour, fields))
        columns_of_intent = np.concatenate([query, habit / max(count, 1), [np.log1p(count)]])
        intent = np.exp(has["intent.0.weight"] @ columns_of_intent + has["intent.0.bias"])
        intent /= intent.sum()
        interest = intent @ (sums / (1 + mass)[:, None])
        table_rows = np.array([0, 6]) + inputs.categorical[row].numpy()
        columns = [
            has["fields.table"][table_rows].ravel(),
            inputs.numeric[row],
            [similarity],
            intent * bins(similarity),
        ]
        logits.append(has["deep.0.weight"][0] @ np.concatenate([*columns, interest]) + has["deep.0.bias"][0])
        intents.append(-np.sum(bins(similarity) * np.log(intent)))
        similarities.append(has["nearness.weight"][0, 0] * similarity + has["nearness.bias"][0])
    np.testing.assert_allclose(output.click_logit.detach().numpy(), logits, atol=1e-5)

    clicked = labels.click.numpy()
    assert 0 < clicked.sum() < 6
    assert parts["intent"].item() == pytest.approx(np.sum(intents * clicked) / clicked.sum(), abs=1e-5)
    near_logit = torch.tensor(similarities).float() + ranker.position_logit(labels.position)
    wanted = functional.binary_cross_entropy_with_logits(near_logit, labels.click)
    assert parts["similarity"].item() == pytest.approx(wanted.item(), abs=1e-5)
    assert parts["total"].item() == pytest.approx(sum(parts[x].item() for x in ("click", "similarity", "intent")))


def test_daian_learns_no_intent_from_a_batch_without_clicks(sizes, encoder, make_batch) -> None:
    ranker = built("daian", sizes, encoder)
    inputs, text, labels = make_batch(4)
    labels = labels._replace(click=torch.zeros(4))
    assert ranker.loss(ranker(inputs, text), inputs, text, labels)["intent"].item() == 0


def test_no_stage_of_daian_moves_another(sizes, encoder, make_batch) -> None:
    ranker = built("daian", sizes, encoder)
    inputs, text, labels = make_batch(16)
    parts = ranker.loss(ranker(inputs, text), inputs, text, labels)
    assert {name: moved_by(ranker, part) for name, part in parts.items() if name != "total"} == {
        "click": {"fields", "behaviours", "deep"},
        "similarity": {"queries", "items", "text", "share", "nearness"},
        "intent": {"intent"},
    }


@pytest.mark.parametrize("name", ["din", "daian"])
@given(padding=st.integers(0, 9), seed=st.integers(0, 2**20))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_padding_changes_neither_score_nor_loss(sizes, encoder, make_batch, name, padding, seed) -> None:
    torch.manual_seed(seed)
    ranker = built(name, sizes, encoder).eval()
    inputs, text, labels = make_batch(5)
    more = torch.randint(0, 3, (5, padding, len(sizes.behaviour)))
    padded = inputs._replace(
        user_behaviours=torch.cat([inputs.user_behaviours, more], 1),
        user_mask=torch.cat([inputs.user_mask, torch.zeros(5, padding, dtype=torch.bool)], 1),
    )
    plain, other = ranker(inputs, text), ranker(padded, text)
    assert torch.allclose(plain.click_logit, other.click_logit, atol=1e-5)
    losses = ranker.loss(plain, inputs, text, labels), ranker.loss(other, padded, text, labels)
    assert losses[0]["total"].item() == pytest.approx(losses[1]["total"].item(), abs=1e-5)

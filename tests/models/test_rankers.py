import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.base import BaseModule
from models.baselines.deep_fm import DeepFM
from models.baselines.din import Din
from models.baselines.wide_deep import WideDeep
from models.export import example_inputs, export_ranker
from models.features import SPARSE_ROWS
from models.registry import RANKERS, build_ranker
from prectr.contracts.model_config import (
    BaselineConfig,
    Flag,
    FusionConfig,
    IncentiveConfig,
    ModelConfig,
    PositionConfig,
    RelevanceNumbers,
    Standardised,
)

NAMES = sorted(RANKERS)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_loss(sizes, encoder, make_batch, name) -> None:
    ranker = build_ranker(ModelConfig(name=name), sizes, encoder)
    inputs, text, labels = make_batch(9)
    output = ranker(inputs, text)
    shapes = [tuple(tensor.shape) for tensor in output]
    assert shapes == [(9,), (9, 4), (9, 4), (9,)]
    parts = ranker.loss(output, inputs, text, labels)
    assert all(part.dim() == 0 and torch.isfinite(part) for part in parts.values())
    logged = ranker.with_position(output.click_logit, labels.position).sigmoid()
    expected = torch.nn.functional.binary_cross_entropy(logged, labels.click)
    assert parts["click"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["additive", "examination"])
def test_overfits_one_batch(sizes, encoder, make_batch, name, form) -> None:
    config = ModelConfig(name=name, position=PositionConfig(form=form))
    ranker = build_ranker(config, sizes, encoder)
    inputs, text, labels = make_batch(24)
    rate = 0.02
    if name == "lr":  # a plane is all it can learn, and a steep one takes far steps
        labels = labels._replace(click=(inputs.numeric @ torch.tensor([1.0, -2.0, 0.5]) > 0.3).float())
        rate = 0.2
    if form == "examination":  # its chance of a click is at most the chance of being seen
        labels = labels._replace(position=torch.ones_like(labels.position))
    optimizer = torch.optim.Adam(ranker.parameter_groups(rate))
    for _ in range(150):
        optimizer.zero_grad()
        parts = ranker.loss(ranker(inputs, text), inputs, text, labels)
        parts["total"].backward()
        optimizer.step()
    assert parts["click"].item() < 0.05


@pytest.mark.parametrize("name", NAMES)
def test_reads_only_what_it_should(sizes, encoder, make_batch, name) -> None:
    inputs, text, _ = make_batch(6)
    ranker = build_ranker(ModelConfig(name=name), sizes, encoder).eval()
    changed = {
        "tolerance": inputs._replace(tolerance=inputs.tolerance + 1),
        "query_preference": inputs._replace(query_preference=inputs.query_preference + 1),
        "query_behaviours": inputs._replace(
            query_behaviours=torch.ones_like(inputs.query_behaviours), query_mask=torch.ones_like(inputs.query_mask)
        ),
        "user_behaviours": inputs._replace(
            user_behaviours=torch.ones_like(inputs.user_behaviours), user_mask=torch.ones_like(inputs.user_mask)
        ),
        "numeric": inputs._replace(numeric=inputs.numeric + 1),
    }
    score = ranker(inputs, text).click_logit
    read = {field for field, other in changed.items() if not torch.equal(ranker(other, text).click_logit, score)}
    if not torch.equal(ranker(inputs, text + 1).click_logit, score):
        read.add("text")
    expected = {
        "prectr": {"user_behaviours", "numeric", "text"},
        "prectr-v2": {"tolerance", "query_preference", "numeric", "text"},
        "din": {"user_behaviours", "numeric"},
        "sukd": {"numeric", "text"},
        "daian": {"user_behaviours", "numeric", "text"},
    }
    assert read == expected.get(name, {"numeric"})
    assert ranker.reads_behaviours == ("user_behaviours" in read)
    if name == "prectr-v2":
        attention = IncentiveConfig(attention=True)
        attending = build_ranker(ModelConfig(name=name, incentive=attention), sizes, encoder).eval()
        without = build_ranker(ModelConfig(name=name, incentive=attention, preference=False), sizes, encoder).eval()
        assert attending.reads_behaviours
        for field, other in changed.items():
            assert not torch.equal(attending(other, text).click_logit, attending(inputs, text).click_logit)
            if field in ("tolerance", "query_preference", "query_behaviours"):
                assert torch.equal(without(other, text).click_logit, without(inputs, text).click_logit)


def test_level_heads_do_not_read_the_relevances_among_the_numbers(sizes) -> None:
    number = Standardised(column=0, mean=0.0, deviation=1.0)
    numbers = RelevanceNumbers(
        judged=Flag(column=0, middle=0.0), taught=Flag(column=2, middle=0.0),
        numeric=(1,), tolerance_slope=(0.0,) * sizes.tolerance, curve=(0.2, 0.1, 0.03),
        **dict.fromkeys(("predictive", "above", "spread", "query_rate", "pair_rate", "pair_examined"), number),
    )  # fmt: skip
    base = BaseModule(FusionConfig(), sizes.model_copy(update={"relevance": numbers}), preference=True)
    inputs, text, level = example_inputs(sizes, 2), torch.zeros(2, sizes.text), torch.zeros(2)
    for column, unread in ((0, False), (1, True), (2, False)):
        numeric = inputs.numeric.clone()
        numeric[:, column] += 1
        assert torch.equal(base(inputs._replace(numeric=numeric), text, level), base(inputs, text, level)) == unread


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("switch", ["tuned", "frozen"])
def test_only_a_tuned_encoder_gets_gradients(sizes, encoder, make_batch, name, switch) -> None:
    ranker = build_ranker(ModelConfig(name=name, encoder=switch), sizes, encoder)
    inputs, _, labels = make_batch(12)
    tokens = torch.randint(1, 40, (12, 5))
    text, _ = encoder(tokens, torch.zeros_like(tokens), torch.ones_like(tokens))
    leaf = text.detach().requires_grad_()
    used = text if text.requires_grad else leaf
    ranker.loss(ranker(inputs, used), inputs, used, labels)["total"].backward()
    tuned = name in ("prectr-v2", "sukd") and switch == "tuned"
    assert ranker.trains_encoder == tuned
    moved = sum(p.grad.abs().sum().item() for p in encoder.parameters() if p.grad is not None)
    assert (moved > 0) == tuned
    assert leaf.grad is None


def test_parameter_groups_cover_each_trained_parameter_once(sizes, encoder) -> None:
    ranker = build_ranker(ModelConfig(), sizes, encoder)
    groups = {group["name"]: group for group in ranker.parameter_groups(0.01, encoder_scale=0.5)}
    rates = {name: group["lr"] for name, group in groups.items()}
    assert rates == pytest.approx({"ranker": 0.01, "position": 0.1, "relevance": 0.005, "encoder": 0.005})
    listed = [id(parameter) for group in groups.values() for parameter in group["params"]]
    trained = [id(parameter) for parameter in ranker.parameters() if parameter.requires_grad]
    assert sorted(listed) == sorted(trained)
    frozen = build_ranker(ModelConfig(name="prectr"), sizes, encoder)
    assert "encoder" not in {group["name"] for group in frozen.parameter_groups(0.01)}


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 2**20))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_padding_never_changes_a_score(sizes, encoder, make_batch, user_padding, query_padding, seed) -> None:
    torch.manual_seed(seed)
    ranker = build_ranker(ModelConfig(), sizes, encoder).eval()
    inputs, text, _ = make_batch(5)
    fields = len(sizes.behaviour)
    padded = inputs._replace(
        user_behaviours=torch.cat([inputs.user_behaviours, torch.randint(0, 3, (5, user_padding, fields))], 1),
        user_mask=torch.cat([inputs.user_mask, torch.zeros(5, user_padding, dtype=torch.bool)], 1),
        query_behaviours=torch.cat([inputs.query_behaviours, torch.randint(0, 3, (5, query_padding, fields + 1))], 1),
        query_mask=torch.cat([inputs.query_mask, torch.zeros(5, query_padding, dtype=torch.bool)], 1),
    )
    for plain, other in zip(ranker(inputs, text), ranker(padded, text), strict=True):
        assert torch.allclose(plain, other, atol=1e-5)


def test_a_score_does_not_depend_on_its_batch(sizes, encoder, make_batch) -> None:
    ranker = build_ranker(ModelConfig(), sizes, encoder).eval()
    inputs, text, _ = make_batch(6)
    alone = ranker(type(inputs)(*(column[2:3] for column in inputs)), text[2:3])
    assert torch.allclose(alone.click_logit, ranker(inputs, text).click_logit[2:3], atol=1e-5)


def test_starts_at_the_prior_click_rate_with_the_looked_up_levels(sizes, encoder, make_batch) -> None:
    config = ModelConfig(fusion=FusionConfig(prior_click_rate=0.05))
    ranker = build_ranker(config, sizes, encoder).eval()
    inputs, text, _ = make_batch(200)
    output = ranker(inputs, text)
    assert torch.allclose(output.level_logits.softmax(-1), inputs.match[:, :4].exp(), atol=1e-5)
    assert output.click_logit.sigmoid().mean().item() == pytest.approx(0.05, abs=0.02)


def test_wide_deep_by_hand(sizes, encoder, make_batch) -> None:
    config = ModelConfig(name="wide-deep", baseline=BaselineConfig(hidden=(), embedding=1, match=True))
    ranker = build_ranker(config, sizes, encoder)
    assert isinstance(ranker, WideDeep)
    inputs, text, _ = make_batch(1)
    inputs = inputs._replace(
        categorical=torch.tensor([[2, 1]]),
        numeric=torch.tensor([[1.0, 2.0, 3.0]]),
        match=torch.cat([torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log(), torch.tensor([[5.0, 6.0]])], -1),
    )
    with torch.no_grad():
        ranker.wide_fields.table.copy_(torch.arange(9.0).unsqueeze(-1))
        ranker.wide_numbers.weight.copy_(torch.tensor([[1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 10.0, 0.0, 1.0]]))
        ranker.wide_numbers.bias.fill_(0.5)
        ranker.deep_fields.table.copy_(torch.arange(9.0).unsqueeze(-1) * 2)
        ranker.deep[0].weight.copy_(torch.tensor([[1.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]]))
        ranker.deep[0].bias.fill_(0.25)
    output = ranker(inputs, text)
    # wide: rows 2 and 6 + 1 = 7 -> 2 + 7; numbers 1 + 3, 10 x 0.4, 6; bias 0.5
    # deep: 4 - 14 + numeric[1] 2 + lexical[0] 5; bias 0.25
    assert output.click_logit.item() == pytest.approx(9 + 4 + 4 + 6 + 0.5 - 10 + 2 + 5 + 0.25, abs=1e-4)
    assert torch.allclose(output.level_logits.softmax(-1), torch.tensor([[0.1, 0.2, 0.3, 0.4]]))
    assert output.level_click_logits.tolist() == [[output.click_logit.item()] * 4]
    assert output.incentive.item() == 0


def test_deepfm_by_hand(sizes, encoder, make_batch) -> None:
    config = ModelConfig(name="deepfm", baseline=BaselineConfig(hidden=(), embedding=2))
    ranker = build_ranker(config, sizes, encoder)
    assert isinstance(ranker, DeepFM)
    inputs, text, _ = make_batch(1)
    inputs = inputs._replace(categorical=torch.tensor([[2, 1]]), numeric=torch.tensor([[1.0, 2.0, 0.0]]))
    with torch.no_grad():
        ranker.linear_fields.table.copy_(torch.arange(9.0).unsqueeze(-1))
        ranker.linear_numbers.weight.copy_(torch.tensor([[1.0, 0.5, 9.0]]))
        ranker.linear_numbers.bias.fill_(0.25)
        ranker.fields.table.zero_()
        ranker.fields.table[2], ranker.fields.table[7] = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0])
        ranker.number_vectors.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]]))
        ranker.deep[0].weight.zero_()
        ranker.deep[0].bias.fill_(10.0)
    # linear: 2 + 7 + 1 + 1 + 0.25. pairs of (1, 2), (3, -1), 1 (1, 0), 2 (0, 2): 1 + 1 + 8 + 3 - 4 + 0.
    assert ranker(inputs, text).click_logit.item() == pytest.approx(11.25 + 9 + 10, abs=1e-4)


def test_din_sums_behaviours_by_their_unnormalised_activation(sizes, encoder, make_batch) -> None:
    config = ModelConfig(name="din", baseline=BaselineConfig(behaviour_width=2, attention_hidden=()))
    ranker = build_ranker(config, sizes, encoder)
    assert isinstance(ranker, Din)
    behaviours = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]])
    target = torch.tensor([[1.0, -1.0]])
    with torch.no_grad():  # a(b, t) = sum(b) + 2 sum(t) + 3 sum(b - t) + 5 sum(b * t)
        ranker.activation[0].weight.copy_(torch.tensor([[1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 5.0, 5.0]]))
        ranker.activation[0].bias.zero_()
    interest = ranker._interest(behaviours, target, torch.tensor([[True, True, False]]))
    weights = [3 + 0 + 9 - 5, 7 + 0 + 21 - 5]
    assert interest[0].tolist() == pytest.approx([weights[0] + 3 * weights[1], 2 * weights[0] + 4 * weights[1]])
    assert ranker._interest(behaviours, target, torch.zeros(1, 3, dtype=torch.bool)).tolist() == [[0.0, 0.0]]


def test_large_tables_are_a_group_of_their_own_with_sparse_gradients(sizes, encoder, make_batch) -> None:
    large = sizes.model_copy(update={"categorical": {"item_id": SPARSE_ROWS, "device": 3}})
    ranker = build_ranker(ModelConfig(name="deepfm"), large, encoder)
    inputs, text, labels = make_batch(5)
    ranker.loss(ranker(inputs, text), inputs, text, labels)["total"].backward()
    groups = {group["name"]: group["params"] for group in ranker.parameter_groups(0.01)}
    assert {id(table) for table in groups["tables"]} == {id(ranker.fields.table), id(ranker.linear_fields.table)}
    assert all(table.grad.is_sparse for table in groups["tables"])
    assert not any(parameter.grad.is_sparse for parameter in groups["ranker"])


def test_a_text_width_other_than_the_encoders_is_refused(sizes, encoder) -> None:
    with pytest.raises(ValueError, match="must be equal"):
        build_ranker(ModelConfig(), sizes.model_copy(update={"text": 16}), encoder)


@pytest.mark.parametrize(
    ("name", "form"),
    [("prectr-v2", "odds"), ("prectr-v2", "level"), *((name, "odds") for name in NAMES if name != "prectr-v2")],
)
def test_exported_ranker_equals_eager(sizes, encoder, make_batch, name, form) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    ranker = build_ranker(ModelConfig(name=name, incentive=IncentiveConfig(form=form)), sizes, encoder)
    with torch.no_grad():  # away from the start, where much is zero
        for parameter in ranker.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    session = onnxruntime.InferenceSession(export_ranker(ranker, sizes, user_length=5, query_length=6))
    ranker.eval()
    for rows in (1, 7):
        inputs, text, _ = make_batch(rows)
        inputs.user_mask[0] = False
        inputs.query_mask[0] = False
        inputs.match[-1, :4] = 0
        with torch.no_grad():
            output = ranker(inputs, text)
        feed = {field: tensor.numpy() for field, tensor in [*inputs._asdict().items(), ("text", text)]}
        answers = session.run(list(output._fields), feed)
        for field, answer, expected in zip(output._fields, answers, output, strict=True):
            assert torch.allclose(torch.from_numpy(answer), expected, atol=1e-4), field

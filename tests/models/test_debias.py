import pytest
import torch

from models.debias import ExposureDebias, reconstruct_level, weighted_hinge
from models.export import example_inputs
from models.registry import build_ranker
from prectr.contracts.model_config import ExposureConfig, IncentiveConfig, ModelConfig
from prectr.contracts.types import RankerInputs, RankerLabels, RankerOutput


def test_reconstructed_levels_by_hand() -> None:
    level = torch.tensor([3, 3, 3, 3, 2, 2, 2])
    scale = torch.tensor([0.3, 0.34, 0.5, 0.9, 0.4, 0.5, 0.6])
    # ceil(s level): 0.9 -> 1, 1.02 -> 2, 1.5 -> 2, 2.7 -> 3, 0.8 -> 1, 1.0 -> 1, 1.2 -> 2
    assert reconstruct_level(level, scale).tolist() == [2, 1, 1, 0, 1, 1, 0]


def test_hinge_by_hand() -> None:
    positive = torch.tensor([2.0, 0.5, 0.0])
    negative = torch.tensor([0.0, 0.0, 1.0])
    weight = torch.tensor([1.0, 0.5, 0.0])
    # max(0, 1 - 2) = 0; 0.5 x max(0, 1 - 0.5) = 0.25; weight 0; two weights above 0
    assert weighted_hinge(positive, negative, weight, torch.ones(3)).item() == pytest.approx(0.125)
    assert weighted_hinge(positive, negative, weight * 0, torch.ones(3)).item() == 0


def test_weight_truncates_by_the_mean_click_rate_and_by_the_users_tolerance(sizes) -> None:
    real, fake = torch.tensor([3, 3, 2]), torch.tensor([0, 1, 1])
    click = torch.tensor([[0.1, 0.1, 0.1, 0.2], [0.1, 0.3, 0.2, 0.2], [0.0, 0.1, 0.4, 0.4]]).logit()
    positive = torch.tensor([0.2, 0.2, 0.01]).logit()
    plain = ExposureDebias(ExposureConfig(tolerance_gate=False), sizes, 0.05)
    assert plain._weight(click, real, fake, positive).tolist() == pytest.approx([1.0, 2 / 3, 0.0])
    untruncated = ExposureDebias(ExposureConfig(tolerance_gate=False, truncation=False), sizes, 0.05)
    assert untruncated._weight(click, real, fake, positive).tolist() == pytest.approx([1.0, 2 / 3, 1 / 3])
    # c[fake] / c[real]: .1 / .2, .3 / .2 clipped to 1, .1 / .4
    gated = ExposureDebias(ExposureConfig(truncation=False), sizes, 0.05)
    assert gated._weight(click, real, fake, positive).tolist() == pytest.approx([0.5, 0.0, 0.25])


def test_donors_are_known_rows_of_the_fake_level() -> None:
    level = torch.tensor([0, 0, 1, 3, 3])
    known = torch.tensor([False, True, True, True, True])
    donor, found = ExposureDebias._donors(torch.tensor([0, 1, 2] * 20), level, known)
    assert set(donor[0::3].tolist()) == {1}
    assert set(donor[1::3].tolist()) == {2}
    assert found.tolist() == [True, True, False] * 20


@pytest.mark.parametrize("fake", ["noise", "mix-up"])
@pytest.mark.parametrize("form", ["odds", "level", "off"])
def test_debias_moves_base_and_text_but_never_the_incentive(sizes, encoder, make_batch, fake, form) -> None:
    exposure = ExposureConfig(weight=0.3, fake=fake, tolerance_gate=False, truncation=False, margin=5.0)
    config = ModelConfig(exposure=exposure, incentive=IncentiveConfig(form=form))
    ranker = build_ranker(config, sizes, encoder)
    inputs, text, labels = make_batch(64)
    text.requires_grad_()
    loss = ranker.loss(ranker(inputs, text), inputs, text, labels)["debias"]
    assert loss.item() > 0
    loss.backward()
    assert text.grad is not None and text.grad.abs().sum() > 0
    moved = {
        name.split(".")[0] for name, p in ranker.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert moved == {"base", "relevance"}


def test_no_clicked_relevant_row_gives_zero_with_a_gradient(sizes, encoder, make_batch) -> None:
    ranker = build_ranker(ModelConfig(exposure=ExposureConfig(weight=0.3)), sizes, encoder)
    inputs, text, labels = make_batch(8)
    labels = labels._replace(click=torch.zeros(8))
    before = ranker.debias.mean_click_rate.item()
    loss = ranker.loss(ranker(inputs, text), inputs, text, labels)["debias"]
    assert loss.item() == 0 and loss.requires_grad
    assert ranker.debias.mean_click_rate.item() == pytest.approx(before * 0.99)
    ranker.eval()
    ranker.loss(ranker(inputs, text), inputs, text, labels)
    assert ranker.debias.mean_click_rate.item() == pytest.approx(before * 0.99)


@pytest.mark.parametrize(
    ("donor_level", "tau", "expected"),
    # weight (3 - 0) / 3; z+ = 0.5 + tau[3], z~ = -1 + tau[0]: max(0, 2 - 1.5), max(0, 2 - (0.9 + 0.9)); no donor
    [(0, [0.3], 0.5), (0, [[0.1, 0.0, 0.0, 0.4]], 0.2), (1, [0.3], 0.0)],
)
def test_a_fake_is_scored_at_its_level_with_the_donors_match_features(sizes, donor_level, tau, expected) -> None:
    exposure = ExposureConfig(scale_low=1.0, scale_high=1.0, tolerance_gate=False, truncation=False, margin=2.0)
    debias = ExposureDebias(exposure, sizes, 0.05)
    calls = []

    def base(inputs: RankerInputs, text: torch.Tensor, expected_level: torch.Tensor) -> torch.Tensor:
        calls.append((inputs, text, expected_level))
        return torch.tensor([[-1.0, 5.0, 5.0, 0.5]])

    # Row 0: a clicked row of level 3, whose fake at s = 1 has level 0; row 1 is the one that may lend match features.
    inputs = example_inputs(sizes, 2)._replace(match=torch.tensor([[0.0] * 5 + [9.0], [0.0] * 5 + [4.0]]))
    levels = torch.eye(4)[[3, donor_level]]
    labels = RankerLabels(
        torch.tensor([1.0, 0.0]), torch.tensor([1, 1]), levels, level_known=torch.ones(2, dtype=torch.bool)
    )
    level_logits = levels * 100
    output = RankerOutput(torch.zeros(2), level_logits, torch.zeros(2, 4), torch.zeros(2))
    loss = debias(output, inputs, torch.ones(2, 8), labels, base, lambda *_: torch.tensor(tau), torch.zeros(2))
    (real, _, real_level), (fake, fake_text, fake_level) = calls
    assert real.match[0, -1] == 9.0 and real_level.item() == pytest.approx(1.0)
    assert fake_level.item() == 0 and not torch.equal(fake_text, torch.ones(1, 8))
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    if donor_level == 0:
        assert fake.match[0, -1] == 4.0


def test_a_noisy_fake_moves_by_its_scale_times_the_vectors_length(sizes) -> None:
    debias = ExposureDebias(ExposureConfig(fake="noise"), sizes, 0.05)
    text = torch.cat([torch.full((4000, 4), 3.0), torch.full((4000, 4), -30.0)])
    rows, scale = torch.arange(8000), torch.tensor([0.5, 1.0]).repeat_interleave(4000)
    moved = debias._fake_text(text, rows, scale) - text
    # s ||h|| / sqrt(d): 0.5 x 6 / 2 and 1 x 60 / 2; 16,000 draws each
    assert moved[:4000].std().item() == pytest.approx(1.5, rel=0.03)
    assert moved[4000:].std().item() == pytest.approx(30.0, rel=0.03)
    assert moved[:4000].mean().abs().item() < 0.05


def test_a_mixed_fake_lies_between_its_row_and_another(sizes) -> None:
    debias = ExposureDebias(ExposureConfig(fake="mix-up"), sizes, 0.05)
    text = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    fakes = debias._fake_text(text, torch.zeros(60, dtype=torch.int64), torch.full((60,), 0.3))
    # (1 - 0.3) h_0 + 0.3 h_j, j any row of the batch
    expected = {(1.0, 0.0, 0.0), (0.7, 0.3, 0.0), (0.7, 0.0, 0.3)}
    assert {tuple(round(value, 4) for value in fake) for fake in fakes.tolist()} == expected


def test_weights_take_no_gradient(sizes, encoder, make_batch) -> None:
    """Neither the gate's click estimates nor the positive's score, which truncation reads, are moved through w."""
    config = ModelConfig(exposure=ExposureConfig(margin=5.0))
    ranker = build_ranker(config, sizes, encoder)
    inputs, text, labels = make_batch(64)
    output = ranker(inputs, text)
    read = [output.level_click_logits, output.click_logit + 5]  # scored above the running mean
    leaves = [tensor.detach().requires_grad_() for tensor in read]
    given = output._replace(level_click_logits=leaves[0])
    loss = ranker.debias(given, inputs, text, labels, ranker.base, ranker.incentive_of, leaves[1])
    loss.backward()
    assert loss.item() > 0 and [leaf.grad for leaf in leaves] == [None, None]

import math

import pytest
import torch
from torch import nn

from models.base import BaseModule
from prectr.contracts.model_config import FeatureSizes, FusionConfig
from prectr.contracts.types import RankerInputs


def _last(base: BaseModule) -> nn.Linear:
    layer = base.network[-1]
    assert isinstance(layer, nn.Linear)
    return layer


def test_level_click_logits_by_hand(sizes: FeatureSizes, make_batch) -> None:
    base = BaseModule(FusionConfig(hidden=(), embedding=1, text_width=2), sizes, preference=True)
    inputs, _, _ = make_batch(1)
    inputs = inputs._replace(
        categorical=torch.tensor([[2, 1]]),
        numeric=torch.tensor([[1.0, 2.0, 3.0]]),
        match=torch.tensor([[-9.0, -9.0, -9.0, -9.0, 5.0, 6.0]]),
        tolerance=torch.tensor([[0.1, 0.2, 0.3, 0.4]]),
        query_preference=torch.tensor([[7.0, 0.0, 0.0, 0.0, 8.0]]),
    )
    # Columns: 2 fields, 3 numbers, 2 lexical, 2 of the text, the expected level, 4 of tolerance, 5 of preference.
    with torch.no_grad():
        base.fields.table.copy_(torch.arange(9.0).unsqueeze(-1))
        base.text.weight.copy_(torch.eye(8)[[7, 1]] * torch.tensor([[1.0], [2.0]]))
        base.text.bias.copy_(torch.tensor([0.0, 0.5]))
        _last(base).weight.zero_()
        _last(base).weight[0, [0, 1]] = torch.tensor([1.0, 10.0])
        _last(base).weight[1, [2, 4, 6]] = torch.tensor([1.0, 10.0, 100.0])
        _last(base).weight[2, [7, 8, 9]] = torch.tensor([1.0, 100.0, 10.0])
        _last(base).weight[3, [11, 18]] = torch.tensor([10.0, 1.0])
        _last(base).bias.copy_(torch.tensor([0.0, 0.5, 0.0, 0.0]))
    logits = base(inputs, torch.arange(8.0).unsqueeze(0), torch.tensor([0.25]))
    # Table rows 2 and 6 + 1 = 7; numbers 1 and 3, lexical 6; text 7 and 2 x 1 + 0.5, level 0.25; tolerance 0.2,
    # preference 8.
    assert logits[0].tolist() == pytest.approx([2 + 70, 1 + 30 + 600 + 0.5, 7 + 250 + 2.5, 2 + 8])


def test_every_level_starts_at_the_prior_click_rate(sizes: FeatureSizes) -> None:
    base = BaseModule(FusionConfig(prior_click_rate=0.2), sizes, preference=True)
    assert _last(base).bias.tolist() == pytest.approx([math.log(0.25)] * 4)


def test_reads_relevance_through_the_expected_level_only_and_preference_by_switch(sizes, make_batch) -> None:
    def read(base: BaseModule) -> set[str]:
        inputs, text, _ = make_batch(3)
        level = torch.rand(3)
        score = base(inputs, text, level)
        other: dict[str, tuple[RankerInputs, torch.Tensor]] = {
            "looked-up levels": (inputs._replace(match=inputs.match + torch.tensor([1.0] * 4 + [0.0] * 2)), level),
            "lexical": (inputs._replace(match=inputs.match + torch.tensor([0.0] * 4 + [1.0] * 2)), level),
            "expected level": (inputs, level + 1),
            "tolerance": (inputs._replace(tolerance=inputs.tolerance + 1), level),
            "query preference": (inputs._replace(query_preference=inputs.query_preference + 1), level),
        }
        return {name for name, (given, at) in other.items() if not torch.equal(base(given, text, at), score)}

    everything = {"lexical", "expected level", "tolerance", "query preference"}
    assert read(BaseModule(FusionConfig(), sizes, preference=True)) == everything
    assert read(BaseModule(FusionConfig(), sizes, preference=False)) == {"lexical", "expected level"}
    without = FusionConfig(expected_level=False)
    assert read(BaseModule(without, sizes, preference=True)) == everything - {"expected level"}

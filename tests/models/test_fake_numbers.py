import math

import pytest
import torch

from models.debias import with_relevance_changed
from models.export import example_inputs
from prectr.contracts.model_config import Flag, RelevanceNumbers, Standardised


def number(column: int, mean: float = 0.0, deviation: float = 1.0) -> Standardised:
    return Standardised(column=column, mean=mean, deviation=deviation)


NUMBERS = RelevanceNumbers(
    judged=Flag(column=0, middle=0.5),
    taught=Flag(column=1, middle=0.5),
    numeric=(),
    tolerance_slope=(0.0, 0.0, 4.0, 0.0),  # column 2 is standardised by 0.25
    predictive=number(0, mean=-2.0, deviation=0.5),
    above=number(2, mean=0.1, deviation=0.25),
    spread=number(1, mean=0.2, deviation=0.1),
    curve=(0.5, 0.3, 0.1),
    query_rate=number(0, mean=-3.0, deviation=0.5),
    pair_rate=number(1, mean=-2.0, deviation=2.0),
    pair_examined=number(2, mean=1.5, deviation=0.5),
)


def test_a_row_of_lower_relevance_by_hand(sizes) -> None:
    row = example_inputs(sizes, 1)._replace(
        tolerance=torch.tensor([[0.4, 1.0, 2.0, 7.0]]), numeric=torch.tensor([[2.0, 0.5, 0.7]])
    )
    fake = with_relevance_changed(row, torch.tensor([-0.5]), NUMBERS)
    # above: 2.0 x 0.25 + 0.1 = 0.6, less 0.5 is 0.1, standardised 0.0; sd: 1.0 x 0.1 + 0.2 = 0.3
    width = math.sqrt(0.3**2 + math.pi / 8 * 0.3**2)
    before, after = (0.1 + 0.5 / (1 + math.exp(-x / width)) for x in (0.6, 0.1))
    predictive = 0.4 * 0.5 - 2.0 + math.log(after / before)
    assert fake.tolerance[0].tolist() == pytest.approx([(predictive + 2.0) / 0.5, 1.0, 0.0, 7.0], abs=1e-5)
    # query rate: 2.0 x 0.5 - 3.0 = -2.0, as a pair rate (-2.0 + 2.0) / 2.0; examined 0: (0 - 1.5) / 0.5
    assert fake.numeric[0].tolist() == pytest.approx([2.0, 0.0, -3.0])
    assert row.tolerance[0, 0] == pytest.approx(0.4) and row.numeric[0, 1] == pytest.approx(0.5)


def test_no_change_of_relevance_keeps_the_tolerance_numbers(sizes) -> None:
    row = example_inputs(sizes, 3)._replace(tolerance=torch.randn(3, 4))
    fake = with_relevance_changed(row, torch.zeros(3), NUMBERS)
    assert torch.allclose(fake.tolerance, row.tolerance, atol=1e-6)

"""The numbers of a row if its relevance were another one and its pair had never been shown [ours].

    above~ = above + d                                      the relevance changes by d, thresholds stay
    predictive~ = predictive + log g(above + d) - log g(above)
    g(x) = eps + a sigmoid(x / sqrt(s^2 + pi sd^2 / 8))     the click curve over a threshold of deviation sd
    pair_rate~ = query_rate,  pair_examined~ = 0            nobody has seen the pair

A fake that kept the numbers of the relevant, clicked row it comes from would contradict its own level. No candidate
looks like that, so ranking such fakes low would teach nothing about candidates.

| symbol | variable | shape |
|---|---|---|
| d | change, in relevance 0..1 | [F] |
| above, sd | numbers.above, numbers.spread, not standardised | [F] |
| a, s, eps | numbers.curve | |
"""

import math

import torch
from torch import Tensor

from prectr.contracts.model_config import RelevanceNumbers, Standardised
from prectr.contracts.types import RankerInputs


def with_relevance_changed(row: RankerInputs, change: Tensor, numbers: RelevanceNumbers) -> RankerInputs:
    """Return F rows with their relevance changed by `change` [F] and their pair never shown."""
    return row._replace(
        tolerance=_tolerance(row.tolerance, change, numbers), numeric=_never_shown(row.numeric, numbers)
    )


def _tolerance(tolerance: Tensor, change: Tensor, numbers: RelevanceNumbers) -> Tensor:
    moved = tolerance + change.unsqueeze(-1) * tolerance.new_tensor(numbers.tolerance_slope)
    gain = _log_curve(moved, numbers) - _log_curve(tolerance, numbers)
    return _with_column(moved, numbers.predictive, _raw(tolerance, numbers.predictive) + gain)


def _log_curve(tolerance: Tensor, numbers: RelevanceNumbers) -> Tensor:
    ceiling, softness, floor = numbers.curve
    width = (softness**2 + math.pi / 8 * _raw(tolerance, numbers.spread).square()).sqrt()
    return (floor + ceiling * (_raw(tolerance, numbers.above) / width).sigmoid()).log()


def _never_shown(numeric: Tensor, numbers: RelevanceNumbers) -> Tensor:
    unseen = _with_column(numeric, numbers.pair_rate, _raw(numeric, numbers.query_rate))
    return _with_column(unseen, numbers.pair_examined, torch.zeros_like(numeric[:, 0]))


def _raw(values: Tensor, number: Standardised) -> Tensor:
    return values[:, number.column] * number.deviation + number.mean


def _with_column(values: Tensor, number: Standardised, raw: Tensor) -> Tensor:
    changed = values.clone()
    changed[:, number.column] = (raw - number.mean) / number.deviation
    return changed

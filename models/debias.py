"""Relevance exposure debias: a pairwise loss against hard negatives that logged exposures lack [paper, form ours].

For each clicked row with level >= 2:

    h~ = h + s ||h|| / sqrt(d) eps,  eps ~ N(0, I),  s ~ U(0.3, 1)      (switch: mix-up (1 - s) h + s h[perm])
    fake_rsl = max(0, level - ceil(s level))
    R = sum w max(0, m - (z+ - z~)) / max(1, #(w > 0))
    w = clip(rho+ - rho~, 0, 1) 1[y+ > running mean CTR],  rho = level / (k - 1),  detached
    margin: m (rho+ - rho~), by switch m
    gate (switch): w <- w (1 - clip(c[fake_rsl] / c[level], 0, 1))

- Match features: the fake takes those of an in-batch row of the fake level, because its own would contradict the fake
  level. Without such a row in the batch the fake's weight is 0.
- Other numbers: the fake gets those of its lower relevance and of an unshown pair (`with_relevance_changed`).
- z~ is the base logit at fake_rsl plus tau. tau is detached on both sides of the pair; otherwise the hinge would raise
  the incentive of everyone who clicks.
- The gate: the plain hinge pushes c[low level] down for exactly the tolerant users who click. A user whose estimate at
  the fake's level is as high as at the clicked level therefore gives no negative.
- y+ includes the logged position, as the running mean does.

| symbol | variable | shape |
|---|---|---|
| s | scale | [F] |
| z+, z~ | positive, fake | [F] |
| w | weight | [F] |
| m | margin | [F] |

F: number of fakes, one for each eligible row.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.fusion import expected_level
from models.incentive import apply_incentive
from prectr.contracts.model_config import LEVELS, ExposureConfig, FeatureSizes, RelevanceNumbers, Standardised
from prectr.contracts.types import RankerInputs, RankerLabels, RankerOutput

BaseCall = Callable[[RankerInputs, Tensor, Tensor], Tensor]
IncentiveCall = Callable[[RankerInputs, Tensor], Tensor]


class ExposureDebias(nn.Module):
    """The pairwise term R and the running mean CTR that its truncation uses."""

    mean_click_rate: Tensor

    def __init__(self, config: ExposureConfig, sizes: FeatureSizes, prior_click_rate: float) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean_click_rate", torch.tensor(prior_click_rate))
        self.numbers = sizes.relevance if config.consistent else None

    def forward(
        self,
        output: RankerOutput,
        inputs: RankerInputs,
        text: Tensor,
        labels: RankerLabels,
        base: BaseCall,
        incentive: IncentiveCall,
        positive_logit: Tensor,
    ) -> Tensor:
        """R of a batch, a scalar with gradient; 0 if no clicked row reaches the minimum level.

        Args:
            output, inputs, text, labels: the batch and its scores.
            base: the model's (inputs, text, expected level) -> level click logits.
            incentive: the model's (inputs, level probabilities) -> tau.
            positive_logit: click logit with the logged position [B].
        """
        if self.training:
            self.mean_click_rate.lerp_(labels.click.mean(), self.config.momentum)
        level = labels.level_soft.argmax(-1)
        eligible = (labels.click > 0.5) & labels.level_known & (level >= self.config.minimum_level)
        rows = eligible.nonzero().squeeze(-1)
        if len(rows) == 0:
            return output.click_logit[:0].sum()

        scale = torch.empty(len(rows), device=text.device).uniform_(self.config.scale_low, self.config.scale_high)
        real_level = level[rows]
        fake_level = reconstruct_level(real_level, scale)
        donor, has_donor = self._donors(fake_level, level, labels.level_known)
        real = RankerInputs(*(column[rows] for column in inputs))
        fake = real._replace(match=inputs.match[donor])
        gap = (real_level - fake_level) / (LEVELS - 1)
        if self.numbers:
            fake = with_relevance_changed(fake, -gap, self.numbers)
        level_logits = output.level_logits[rows]
        with torch.no_grad():
            tau = incentive(real, level_logits.softmax(-1))

        real_logits = base(real, text[rows], expected_level(level_logits.detach().softmax(-1)))
        positive, _, _ = apply_incentive(level_logits, real_logits, tau)
        fake_logits = base(fake, self._fake_text(text, rows, scale), fake_level / (LEVELS - 1))
        fake_tau = tau if tau.dim() == 1 else _at(tau, fake_level)
        negative = _at(fake_logits, fake_level) + fake_tau

        weight = self._weight(output.level_click_logits[rows], real_level, fake_level, positive_logit[rows])
        weight = torch.where(has_donor, weight, 0.0)
        margin = self.config.margin * (gap if self.config.margin_form == "level" else torch.ones_like(gap))
        return weighted_hinge(positive, negative, weight, margin)

    @torch.no_grad()
    def _weight(self, click_logits: Tensor, real_level: Tensor, fake_level: Tensor, positive_logit: Tensor) -> Tensor:
        weight = ((real_level - fake_level) / (LEVELS - 1)).clamp(0, 1)
        if self.config.truncation:
            weight = weight * (positive_logit.sigmoid() > self.mean_click_rate)
        if self.config.tolerance_gate:
            click = click_logits.sigmoid()
            weight = weight * (1 - (_at(click, fake_level) / _at(click, real_level).clamp(min=1e-9)).clamp(0, 1))
        return weight

    def _fake_text(self, text: Tensor, rows: Tensor, scale: Tensor) -> Tensor:
        real = text[rows]
        if self.config.fake == "mix-up":
            partners = text[torch.randint(len(text), (len(rows),), device=text.device)]
            return torch.lerp(real, partners, scale.unsqueeze(-1))
        size = real.detach().norm(dim=-1, keepdim=True) / math.sqrt(real.shape[-1])
        return real + scale.unsqueeze(-1) * size * torch.randn_like(real)

    @staticmethod
    def _donors(fake_level: Tensor, level: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """A random in-batch row of each fake's level: its number [F], and whether such a row exists [F]."""
        matches = (fake_level.unsqueeze(-1) == level) & known
        return torch.rand(matches.shape, device=matches.device).masked_fill(~matches, -1).argmax(-1), matches.any(-1)


def reconstruct_level(level: Tensor, scale: Tensor) -> Tensor:
    """max(0, level - ceil(s level)): int64 [F], float [F] -> int64 [F]."""
    return (level - (scale * level).ceil().long()).clamp(min=0)


def weighted_hinge(positive: Tensor, negative: Tensor, weight: Tensor, margin: Tensor) -> Tensor:
    """sum w max(0, m - (z+ - z~)) / max(1, #(w > 0)): four [F] -> []."""
    return (weight * functional.relu(margin - (positive - negative))).sum() / (weight > 0).sum().clamp(min=1)


def _at(values: Tensor, level: Tensor) -> Tensor:
    return values.gather(-1, level.unsqueeze(-1)).squeeze(-1)


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

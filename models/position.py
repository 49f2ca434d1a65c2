"""Position bias of clicks: learned in training, dropped in serving [ours].

    additive:     logit P(click | x, pos) = z(x) + b_pos,            b_1 = 0
    examination:  P(click | x, pos) = e_pos sigmoid(z(x)),           e_1 = 1

Both start at log e_pos = b_pos = -log pos. Position 1 is fixed, so "position-free" means "as if shown first".

| symbol | variable |
|---|---|
| z | click_logit |
| b_pos, logit e_pos | bias (position 2 and on) |
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from prectr.contracts.model_config import PositionConfig

_ALWAYS_EXAMINED = 30.0  # logit of e_1: 1 - e_1 is 1e-13


class PositionBias(nn.Module):
    """Position bias of positions 1..`positions`; later positions share the bias of the last one.

    >>> bias = PositionBias(PositionConfig(form="examination"), positions=10)
    >>> click_logit = torch.tensor([0.2, 0.2]).logit()
    >>> [round(value, 3) for value in bias(click_logit, torch.tensor([1, 4])).sigmoid().tolist()]
    [0.2, 0.05]
    """

    def __init__(self, config: PositionConfig, positions: int) -> None:
        super().__init__()
        self.form = config.form
        self.positions = positions
        position = torch.arange(2, positions + 1, dtype=torch.float32)
        start = -position.log() if self.form == "additive" else -(position - 1).log()
        self.bias = nn.Parameter(start)

    def forward(self, click_logit: Tensor, position: Tensor) -> Tensor:
        """Logit of a click at `position` (int64 [B], from 1), given the position-free logit [B]."""
        bias = self._bias(position)
        if self.form == "additive":
            return click_logit + bias
        log_examined, log_missed = functional.logsigmoid(bias), functional.logsigmoid(-bias)
        log_click = log_examined + functional.logsigmoid(click_logit)
        log_no_click = torch.logaddexp(log_missed, log_examined + functional.logsigmoid(-click_logit))
        return log_click - log_no_click

    def position_logit(self, position: Tensor) -> Tensor:
        """b_pos, or log e_pos in the examination form; 0 at position 1: [B] -> [B]."""
        bias = self._bias(position)
        return bias if self.form == "additive" else functional.logsigmoid(bias)

    def _bias(self, position: Tensor) -> Tensor:
        first = self.bias.new_full((1,), 0.0 if self.form == "additive" else _ALWAYS_EXAMINED)
        return torch.cat([first, self.bias])[position.clamp(1, self.positions) - 1]

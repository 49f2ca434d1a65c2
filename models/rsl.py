"""RSL module: the distribution over relevance score levels.

    p = softmax(MLP_rsl([h, match]))                                     [summary]
    z = a log q + (1 - a) head(h) + MLP([h, match]),   p = softmax(z)    [ours]

- `head` starts as the distilled student's classifier: distillation is the first training stage.
- q is the level distribution looked up for the pair: a judgment, else that of teacher or encoder (`relevance.first`).
- a starts at 1 and the MLP at 0. Training starts from the looked-up distribution, and from the student's distribution
  where there is no look-up.

| symbol | variable | shape |
|---|---|---|
| h | text | [B, d] |
| q | looked_up (match[:, :k], logarithms) | [B, k] |
| a | trust, 0 where there is no look-up | scalar |
| z | level_logits | [B, k] |
"""

import torch
from torch import Tensor, nn

from models.encoder import TextEncoder
from models.layers import feed_forward, start_at_zero
from prectr.contracts.model_config import LEVELS, FeatureSizes, FusionConfig

_LEAST_LOG_PROBABILITY = -12.0  # the exact zeros of a judgment would give -inf


class RelevanceModule(nn.Module):
    """Predict level logits from the text vector and the match features."""

    def __init__(self, config: FusionConfig, sizes: FeatureSizes) -> None:
        super().__init__()
        self.head = nn.Linear(sizes.text, LEVELS)
        self.trust = nn.Parameter(torch.ones(()))
        self.residual = start_at_zero(
            feed_forward(sizes.text + sizes.match + 1, config.relevance_hidden, LEVELS, config.dropout)
        )

    def initialise_from(self, encoder: TextEncoder) -> None:
        """Copy the student's classifier into `head`."""
        with torch.no_grad():
            self.head.weight.copy_(encoder.classifier.weight)
            if encoder.classifier.bias is None:
                nn.init.zeros_(self.head.bias)
            else:
                self.head.bias.copy_(encoder.classifier.bias)

    def forward(self, text: Tensor, match: Tensor) -> Tensor:
        """Text [B, d], match features [B, M] -> level logits [B, k]."""
        known, log_probabilities = look_up(match)
        probabilities = known * log_probabilities.exp()
        trust = self.trust * known
        residual = self.residual(torch.cat([text, known, probabilities, match[:, LEVELS:]], -1))
        return trust * log_probabilities + (1 - trust) * self.head(text) + residual


def look_up(match: Tensor) -> tuple[Tensor, Tensor]:
    """Read the looked-up level distribution of each row.

    Four zeros mean "no look-up": they are no log-probabilities, because their exponentials do not sum to 1.

    Returns:
        Whether there is a look-up, float [B, 1], and its log-probabilities [B, k], 0 without one.
    """
    logarithms = match[:, :LEVELS]
    known = ((logarithms.exp().sum(-1, keepdim=True) - 1).abs() < 0.05).to(match.dtype)
    return known, known * logarithms.clamp(min=_LEAST_LOG_PROBABILITY)

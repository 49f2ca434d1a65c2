"""RSL module: the distribution over relevance score levels.

    p = softmax(MLP_rsl([h, match]))                                     [summary]
    z = a_s log q + (1 - a_s) head(h) + MLP([h, match]),   p = softmax(z)    [ours]

- `head` starts as the distilled student's classifier: distillation is the first training stage.
- q is the level distribution looked up for the pair: a judgment, else that of teacher or encoder (`relevance.first`).
- a_s, the trust in the source s of q, starts at `fusion.trust`, and the MLP at 0. The encoder's own q is what `head`
  says before training, so that p starts at q there whatever its trust; below 1 clicks can move it.

| symbol | variable | shape |
|---|---|---|
| h | text | [B, d] |
| q | looked_up (match[:, :k], logarithms) | [B, k] |
| a_s | trust, 0 where there is no look-up | [3] |
| z | level_logits | [B, k] |
"""

import torch
from torch import Tensor, nn

from models.encoder import TextEncoder
from models.layers import feed_forward, start_at_zero
from prectr.contracts.model_config import LEVELS, FeatureSizes, FusionConfig

_LEAST_LOG_PROBABILITY = -12.0  # the exact zeros of a judgment would give -inf


class RelevanceModule(nn.Module):
    """Predict level logits from the text vector and the match features.

    Without `sizes.relevance` nothing says where levels come from, and all are trusted like judgments.
    """

    def __init__(self, config: FusionConfig, sizes: FeatureSizes) -> None:
        super().__init__()
        self.numbers = sizes.relevance
        self.head = nn.Linear(sizes.text, LEVELS)
        self.trust = nn.Parameter(torch.tensor(config.trust))
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

    def forward(self, text: Tensor, match: Tensor, numeric: Tensor) -> Tensor:
        """Text [B, d], match features [B, M], numeric features [B, N] -> level logits [B, k]."""
        known, log_probabilities = look_up(match)
        probabilities = known * log_probabilities.exp()
        trust = known * self._trust(numeric)
        residual = self.residual(torch.cat([text, known, probabilities, match[:, LEVELS:]], -1))
        return trust * log_probabilities + (1 - trust) * self.head(text) + residual

    def _trust(self, numeric: Tensor) -> Tensor:
        """Trust in the source of each row's levels: [B, N] -> [B, 1], or one for all rows, [1]."""
        if self.numbers is None:
            return self.trust[:1]
        judged, taught = (
            (numeric[:, flag.column] > flag.middle).to(numeric.dtype)
            for flag in (self.numbers.judged, self.numbers.taught)
        )
        return torch.stack([judged, taught, 1 - judged - taught], -1) @ self.trust.unsqueeze(-1)


def look_up(match: Tensor) -> tuple[Tensor, Tensor]:
    """Read the looked-up level distribution of each row.

    Four zeros mean "no look-up": they are no log-probabilities, because their exponentials do not sum to 1.

    Returns:
        Whether there is a look-up, float [B, 1], and its log-probabilities [B, k], 0 without one.
    """
    logarithms = match[:, :LEVELS]
    known = ((logarithms.exp().sum(-1, keepdim=True) - 1).abs() < 0.05).to(match.dtype)
    return known, known * logarithms.clamp(min=_LEAST_LOG_PROBABILITY)

"""Personal relevance incentive tau, from the histories of the user and the query.

    b_j = W[e_query ; e_item ; E_rsl[level_j] ; e_clicked ; e_recency (; e_group)]              [ours]
    t = W_t[e_query ; e_item ; p @ E_rsl]                                                       [ours]
    r_user = MHTA(t, S_u),  r_query = MHTA(t, S_q) + MLP(g_q)                                   [summary]
    r = a r_user + (1 - a) r_query,  a = sigmoid(w . [r_user, r_query, log1p n_user, log1p n_query])
                                                    [ours], switch `sum`: r = r_user + r_query  [summary]
    tau = sum_j softmax(W_g[r, t, log1p n])_j s_j softplus(f_j([r, t])),  s = (+, +, -, -)      [summary]
    logit y = logit P + tau, or per level c_i <- sigmoid(logit c_i + tau_i) by switch           [ours]

- e_item embeds category, brand and price. W[...] is the sum of one table of width d_b per field.
- e_query is a constant unless `samples.query_buckets` gives queries ids; off by default [ours], so that tau cannot
  learn single queries by heart.
- t replaces e_user and e_query in the gate [ours], because user identities are not features.
- W_g and the last layers of f start near zero, and each sign has half of the initial weight: tau starts near 0.
- t reads p, but no gradient flows back to p [ours].

| symbol | variable | shape |
|---|---|---|
| b | tokens | [B, L, d_b] |
| t | target | [B, d_b] |
| g_q | query_preference | [B, G] |
| p | level_probabilities | [B, k] |
| s | signs | [experts] |

Shape suffixes: B rows, L behaviours, H heads, D width d_b, E width of a head.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.features import FieldEmbeddings
from models.fusion import fuse
from models.layers import feed_forward
from prectr.contracts.model_config import BEHAVIOUR_FIELDS, LEVELS, TARGET_FIELDS, FeatureSizes, IncentiveConfig
from prectr.contracts.types import RankerInputs

_MASKED = -1e9
_LEVEL_FIELD = BEHAVIOUR_FIELDS.index("level")


class TargetAttention(nn.Module):
    """Masked multi-head attention of one target over a sequence; an empty sequence gives a learned null vector.

    The key projection is applied to the target and the value projection to the attended sum, not to every token. The
    function is the same (q . W_k b = W_k' q . b) at a fraction of the work.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Parameter(torch.empty(heads, width // heads, width))
        self.value = nn.Parameter(torch.empty(heads, width // heads, width))
        self.output = nn.Linear(width, width)
        self.null = nn.Parameter(torch.randn(width) * 0.05)
        for weight in (self.key, self.value):
            nn.init.normal_(weight, std=1 / math.sqrt(width))

    def forward(self, target_BD: Tensor, tokens_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """Target [B, D], tokens [B, L, D], mask [B, L] (True = real) -> [B, D]."""
        query_BHE = self.query(target_BD).unflatten(-1, (self.heads, -1))
        query_BHD = torch.einsum("bhe,hed->bhd", query_BHE, self.key)
        scores_BHL = query_BHD @ tokens_BLD.transpose(1, 2) / math.sqrt(query_BHE.shape[-1])
        weights_BHL = scores_BHL.masked_fill(~mask_BL.unsqueeze(1), _MASKED).softmax(-1)
        attended_BHD = weights_BHL @ tokens_BLD
        value_BHE = torch.einsum("bhd,hed->bhe", attended_BHD, self.value)
        return torch.where(mask_BL.any(-1, keepdim=True), self.output(value_BHE.flatten(1)), self.null)


class Incentive(nn.Module):
    """Incentive tau of each row. `across_users` adds the query's history (V2); without it only S_u is read (V1)."""

    signs: Tensor

    def __init__(self, config: IncentiveConfig, sizes: FeatureSizes, across_users: bool) -> None:
        super().__init__()
        width = config.width
        self.across_users = across_users
        self.attention = config.attention
        self.combine = config.combine
        self.outputs = LEVELS if config.form == "level" else 1
        self.fields = FieldEmbeddings([*sizes.behaviour.values(), sizes.user_group], width, "sum", deviation=0.1)
        self.target = nn.Linear(width, width)
        self.user_attention = TargetAttention(width, config.heads)
        if across_users:
            self.query_attention = TargetAttention(width, config.heads)
            self.query_numbers = feed_forward(sizes.query_preference, (width,), width)
            self.gate = nn.Linear(2 * width + 2, 1)
        experts = config.positive_experts + config.negative_experts
        signs = torch.tensor([1.0] * config.positive_experts + [-1.0] * config.negative_experts)
        self.register_buffer("signs", signs, persistent=False)
        self.choice = nn.Linear(2 * width + 1 + int(across_users), experts)
        # All experts' hidden layers side by side; each expert's last layer reads its own slice only.
        self.hidden = nn.Linear(2 * width, experts * config.hidden)
        self.last = nn.Parameter(torch.randn(experts, config.hidden, self.outputs) * 0.01)
        self.last_bias = nn.Parameter(torch.zeros(experts, self.outputs))
        nn.init.normal_(self.choice.weight, std=0.01)
        # Give each sign half of the initial weight, so that unequal numbers of experts start in balance.
        counts = torch.where(signs > 0, float(config.positive_experts), float(config.negative_experts))
        with torch.no_grad():
            self.choice.bias.copy_(-counts.log())

    def forward(self, inputs: RankerInputs, level_probabilities: Tensor) -> Tensor:
        """Inputs of B rows, p [B, k] -> tau [B], or [B, k] when level-resolved."""
        target_BD = self._target(inputs.target, level_probabilities.detach())
        if self.attention:
            # S_u has the fields of S_q without the last one, the user group.
            summary_BD = self.user_attention(target_BD, self.fields(inputs.user_behaviours), inputs.user_mask)
        else:
            summary_BD = self.user_attention.null.expand_as(target_BD)
        counts = inputs.history_counts[:, : 1 + int(self.across_users)]
        if self.across_users:
            summary_BD = self._add_query(inputs, target_BD, summary_BD)
        return self._experts(summary_BD, target_BD, counts)

    def _add_query(self, inputs: RankerInputs, target_BD: Tensor, user_BD: Tensor) -> Tensor:
        if self.attention:
            query_BD = self.query_attention(target_BD, self.fields(inputs.query_behaviours), inputs.query_mask)
        else:
            query_BD = self.query_attention.null.expand_as(target_BD)
        query_BD = query_BD + self.query_numbers(inputs.query_preference)
        if self.combine == "sum":
            return user_BD + query_BD
        share = self.gate(torch.cat([user_BD, query_BD, inputs.history_counts], -1)).sigmoid()
        return share * user_BD + (1 - share) * query_BD

    def _experts(self, summary_BD: Tensor, target_BD: Tensor, counts: Tensor) -> Tensor:
        choice = self.choice(torch.cat([summary_BD, target_BD, counts], -1)).softmax(-1)
        hidden = functional.gelu(self.hidden(torch.cat([summary_BD, target_BD], -1)))
        hidden = hidden.unflatten(-1, (self.last.shape[0], self.last.shape[1]))
        answers = functional.softplus(torch.einsum("bxh,xho->bxo", hidden, self.last) + self.last_bias)
        tau = torch.einsum("bx,bxo->bo", choice * self.signs, answers)
        return tau if self.outputs > 1 else tau.squeeze(-1)

    def _target(self, target: Tensor, level_probabilities: Tensor) -> Tensor:
        levels = self.fields.rows_of(_LEVEL_FIELD)[1 : 1 + LEVELS]
        assert target.shape[-1] == len(TARGET_FIELDS)
        return self.target(self.fields(target) + level_probabilities @ levels)


def apply_incentive(level_logits: Tensor, level_click_logits: Tensor, tau: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fuse relevance, clicks and incentive: tau [B] is added to the odds, tau [B, k] to each level's click logit.

    Returns:
        Click logit [B], level click logits [B, k] (with tau, if it is level-resolved), and one incentive per row [B].
    """
    if tau.dim() == 1:
        return fuse(level_logits, level_click_logits) + tau, level_click_logits, tau
    level_click_logits = level_click_logits + tau
    return fuse(level_logits, level_click_logits), level_click_logits, (level_logits.softmax(-1) * tau).sum(-1)

"""DAIAN (arXiv 2602.13971), a model for recommendations triggered by an item; here the trigger is the query [ours].

    1  s(v) = g cos(t, v) + (1 - g) cos(z, v),   z = W h,   g = sigmoid(w . [t, z] + b)      mixes IDs and text
       logit y_1 = a s(v) + c
    2  pi = softmax(MLP_i([t, habit, log1p n])),   habit = mean_j m(cos(t_j, v_j))           similarity of the clicks
    3  u = sum_k pi_k sum_j m_k(s(v_j)) b_j / (1 + sum_j m_k(s(v_j)))                        history retrieved by bin
       logit y = MLP([embedded fields, numbers, s(v), pi * m(s(v)), u])
    m(s) = softmax_k(-(s - c_k)^2 / (2 r^2)),   c_k even in [-1, 1],   r half of their distance

    L = BCE(y) + BCE(y_1) + CE(pi against m(s(v)), clicked rows only)

The ideas are the paper's [summary]: a distribution over bins of similarity to the trigger, retrieval by bin, a mix of
ID and semantic similarity, and three training stages. Every equation above is ours, so the figures are those of an
adaptation:
- t embeds the row's query, so it wants `samples.query_buckets`; without ids of queries it is constant, and the trigger
  is the text only. v embeds the item's category, brand and price (histories hold no item ids). j runs over the user's
  clicks S_u, each with its own query t_j. h is the text vector of the row's query and title, not of the query alone.
- Bins are soft. A bin that holds little of the history contributes little.
- The stages train at the same time. Stages 2 and 3 read earlier stages through a stop-gradient, so the sum needs no
  weights; the stages share only the position bias. The text encoder is frozen.

| symbol | variable | shape |
|---|---|---|
| t, z, g | `Trigger`: ids, text, share | [B, D], [B, D], [B] |
| v, v_j | items | [B, D], [B, L, D] |
| b_j | behaviours | [B, L, D] |
| m | `_bins` | [..., K] |
| pi | intent_BK | [B, K] |
| c, r | centres, radius | [K], number |

Shape suffixes: B rows, L behaviours, K bins, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.baselines.common import baseline_output, numbers_of, numbers_width, start_at_prior
from models.encoder import TextEncoder
from models.features import FieldEmbeddings
from models.layers import feed_forward
from models.ranker import Ranker
from prectr.contracts.model_config import FeatureSizes, ModelConfig
from prectr.contracts.types import TARGET_FIELDS, RankerInputs, RankerLabels, RankerOutput

_ITEM = slice(1, len(TARGET_FIELDS))  # the item's fields of a target or behaviour; field 0 is the query


class Trigger(NamedTuple):
    """Trigger of each row: the query's embedding, the text vector and the weight of the embedding."""

    ids: Tensor  # [B, D]
    text: Tensor  # [B, D]
    share: Tensor  # [B]: g

    def similarity(self, items: Tensor) -> Tensor:
        """Similarity s, in -1..1: items [B, D] -> [B], or [B, L, D] -> [B, L]."""
        single = items.dim() == 2
        items_BLD = items.unsqueeze(1) if single else items
        by_ids = functional.cosine_similarity(self.ids.unsqueeze(1), items_BLD, -1)
        by_text = functional.cosine_similarity(self.text.unsqueeze(1), items_BLD, -1)
        mixed = self.share.unsqueeze(-1) * by_ids + (1 - self.share.unsqueeze(-1)) * by_text
        return mixed.squeeze(1) if single else mixed


class Daian(Ranker):
    """The DAIAN baseline."""

    centres: Tensor

    def __init__(self, config: ModelConfig, sizes: FeatureSizes, encoder: TextEncoder) -> None:
        super().__init__(config, sizes, encoder, trains_encoder=False)
        self.settings = config.baseline
        width, bins, hidden = self.settings.behaviour_width, self.settings.similarity_bins, self.settings.hidden
        cardinalities = list(sizes.behaviour.values())
        self.queries = FieldEmbeddings(cardinalities[:1], width, deviation=0.1)
        self.items = FieldEmbeddings(cardinalities[_ITEM], width, "sum", deviation=0.1)
        self.text = nn.Linear(sizes.text, width)
        self.share = nn.Linear(2 * width, 1)
        self.nearness = nn.Linear(1, 1)
        self.register_buffer("centres", torch.linspace(-1, 1, bins), persistent=False)
        self.radius = 1 / (bins - 1)
        self.intent = feed_forward(width + bins + 1, self.settings.attention_hidden, bins)
        self.behaviours = FieldEmbeddings(cardinalities, width, "sum", deviation=0.1)
        self.fields = FieldEmbeddings(list(sizes.categorical.values()), self.settings.embedding)
        deep_width = len(sizes.categorical) * self.settings.embedding + numbers_width(self.settings, sizes)
        self.deep = feed_forward(deep_width + 1 + bins + width, hidden, 1, self.settings.dropout)
        last = self.deep[-1]
        assert isinstance(last, nn.Linear)
        for layer in (last, self.nearness):
            start_at_prior(layer, config.fusion.prior_click_rate)

    def forward(self, inputs: RankerInputs, text: Tensor) -> RankerOutput:
        """Score B rows with stage 3; text [B, d]."""
        trigger = self._trigger(inputs, text)
        near_B = trigger.similarity(self.items(inputs.target[:, _ITEM])).detach()
        near_BL = trigger.similarity(self.items(inputs.user_behaviours[..., _ITEM])).detach()
        intent_BK = self._intent_logits(inputs).softmax(-1).detach()
        retrieved_BKD = self._retrieve(self.behaviours(inputs.user_behaviours), near_BL, inputs.user_mask)
        interest_BD = (intent_BK.unsqueeze(-1) * retrieved_BKD).sum(1)
        parts = [self.fields(inputs.categorical), numbers_of(self.settings, inputs), near_B.unsqueeze(-1)]
        parts += [intent_BK * self._bins(near_B), interest_BD]
        return baseline_output(self.deep(torch.cat(parts, -1)).squeeze(-1), inputs)

    def loss(self, output: RankerOutput, inputs: RankerInputs, text: Tensor, labels: RankerLabels) -> dict[str, Tensor]:
        """Add the losses of stages 1 and 2: `similarity`, and `intent`, which is 0 without a clicked row."""
        parts = super().loss(output, inputs, text, labels)
        near_B = self._trigger(inputs, text).similarity(self.items(inputs.target[:, _ITEM]))
        near_logit = self.with_position(self.nearness(near_B.unsqueeze(-1)).squeeze(-1), labels.position)
        similarity = functional.binary_cross_entropy_with_logits(near_logit, labels.click)
        target_BK, logits_BK = self._bins(near_B.detach()), self._intent_logits(inputs)
        distance_B = functional.cross_entropy(logits_BK, target_BK, reduction="none")
        intent = (distance_B * labels.click).sum() / labels.click.sum().clamp(min=1)
        total = parts["total"] + similarity + intent
        return {**parts, "total": total, "similarity": similarity, "intent": intent}

    def _trigger(self, inputs: RankerInputs, text: Tensor) -> Trigger:
        ids_BD, text_BD = self.queries(inputs.target[:, :1]), self.text(text.detach())
        return Trigger(ids_BD, text_BD, self.share(torch.cat([ids_BD, text_BD], -1)).sigmoid().squeeze(-1))

    def _intent_logits(self, inputs: RankerInputs) -> Tensor:
        """Logits of pi, [B, K]; they depend on the trigger and the user only."""
        trigger_BD = self.queries(inputs.target[:, :1]).detach()
        queries_BLD = self.queries(inputs.user_behaviours[..., :1])
        items_BLD = self.items(inputs.user_behaviours[..., _ITEM])
        bins_BLK = self._bins(functional.cosine_similarity(queries_BLD, items_BLD, -1).detach())
        real_BL1 = inputs.user_mask.unsqueeze(-1).to(bins_BLK.dtype)
        count_B1 = real_BL1.sum(1)
        habit_BK = (bins_BLK * real_BL1).sum(1) / count_B1.clamp(min=1)
        return self.intent(torch.cat([trigger_BD, habit_BK, count_B1.log1p()], -1))

    def _retrieve(self, behaviours_BLD: Tensor, near_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """History summed by bin: [B, K, D]; zeros for an empty history."""
        weight_BLK = self._bins(near_BL).masked_fill(~mask_BL.unsqueeze(-1), 0.0)
        return weight_BLK.transpose(1, 2) @ behaviours_BLD / (1 + weight_BLK.sum(1)).unsqueeze(-1)

    def _bins(self, similarity: Tensor) -> Tensor:
        """Bin memberships m, which sum to 1: [...] -> [..., K]."""
        return (-0.5 * ((similarity.unsqueeze(-1) - self.centres) / self.radius).square()).softmax(-1)

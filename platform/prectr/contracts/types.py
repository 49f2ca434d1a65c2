"""Named tuples of tensors that features, models, training and serving exchange. Nothing here may compute.

Legend: B rows (one row = one impression or candidate), C categorical fields, N numeric features, M match features,
T tolerance numbers, G query-preference numbers, S behaviour fields, k = LEVELS, d width of the text encoder.
Sizes are in `prectr.contracts.model_config.FeatureSizes`.
"""

from typing import NamedTuple

from torch import Tensor

from prectr.contracts.model_config import BEHAVIOUR_FIELDS, LEVELS, TARGET_FIELDS

__all__ = ["BEHAVIOUR_FIELDS", "LEVELS", "TARGET_FIELDS", "RankerInputs", "RankerLabels", "RankerOutput"]


class RankerInputs(NamedTuple):
    """Inputs of a ranker for one batch, besides the text vectors.

    Id 0 of every vocabulary means unknown; models treat an id outside its vocabulary as unknown. The behaviour field
    `level` holds `level + 1` (1..4; 0 unknown). Numbers are standardised by the feature specification. Masks are True
    at real behaviours; models never read padded places.
    """

    categorical: Tensor  # int64 [B, C], field order of FeatureSizes.categorical
    numeric: Tensor  # float [B, N]
    match: Tensor  # float [B, M]; first 4: log-probabilities of the looked-up levels; zeros: not looked up
    tolerance: Tensor  # float [B, T]
    user_behaviours: Tensor  # int64 [B, 20, S]: S_u, field order BEHAVIOUR_FIELDS
    user_mask: Tensor  # bool [B, 20]
    query_behaviours: Tensor  # int64 [B, 30, S + 1]: S_q, the last field is the user group
    query_mask: Tensor  # bool [B, 30]
    query_preference: Tensor  # float [B, G]: g_q
    history_counts: Tensor  # float [B, 2]: log1p of the numbers of behaviours of user and query
    target: Tensor  # int64 [B, 4]: fields of the row, order TARGET_FIELDS, vocabularies of the behaviours


class RankerLabels(NamedTuple):
    """Training targets of a batch."""

    click: Tensor  # float [B], 0 or 1
    position: Tensor  # int64 [B], from 1
    level_soft: Tensor  # float [B, k]: gold one-hot or teacher / encoder distribution
    level_known: Tensor  # bool [B]; False: the level is unknown, and level losses skip the row
    level_weight: Tensor | None = None  # float [B]: weight of the level term; None = 1 everywhere


class RankerOutput(NamedTuple):
    """Outputs of every ranker for a batch."""

    click_logit: Tensor  # float [B], position-free
    level_logits: Tensor  # float [B, k]
    level_click_logits: Tensor  # float [B, k]: logit c_i, including a level-resolved incentive
    incentive: Tensor  # float [B]: tau; level-resolved: sum_i p_i tau_i

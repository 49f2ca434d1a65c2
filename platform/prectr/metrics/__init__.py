"""Ranking and calibration metrics, vectorised, with the definition of each number, because libraries differ.

AUC      probability that a clicked row scores above a not clicked one; ties count one half.
GAUC     mean of per-group AUC, weighted by the group's impressions or clicks, or unweighted; groups of one class are
         dropped and counted [ours, the paper does not say]. By default groups are users and weights impressions.
RelaImpr ((AUC - 0.5) / (AUC of the base - 0.5) - 1) * 100 % [paper]; refused for a base at or below 0.5.
log loss mean negative log-likelihood of the clicks, in nats.
NE       normalised entropy: log loss over the log loss of predicting the rows' click rate; below 1 beats the rate
         (He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", 2014).
ECE      mean distance of predicted and actual click rate in 20 bins of equal numbers of rows, weighted by rows; rows
         with equal probabilities share a bin [ours], so the order of rows never matters. Chance alone makes it
         positive; `bootstrap.UserRows.calibration_rms` is the root mean square of the distances without that part.
NDCG@k   sum of gain / log2(1 + rank) over the first k of a list, divided by that sum in the best order; mean over
         lists with a positive gain.
MRR      mean over lists with a relevant row of 1 / rank of the first relevant one.
top mean mean over lists of the mean value (a level or a grade) of their first k rows.
coverage of the distinct candidates that are relevant in some list, the share that reaches the first k of such a list.

Rows with equal scores in a list are in random order: NDCG, MRR, top mean and coverage are the expectation over that
order [ours], so neither the order of rows nor the logged positions change a number. NaN scores raise a ValueError with
their count. A metric without a value (no rows, one class only, no relevant row) is NaN.

Reading order: `ties` (the structure behind all ranking metrics), `roc`, `lists`, `calibration`, `agreement`; `slices`
(groups of rows); then `bootstrap` and `comparison` (intervals and verdicts). The room knows no files and no model.
"""

from prectr.metrics.calibration import (
    CalibrationBins,
    calibration_bins,
    calibration_error,
    log_loss,
    normalised_entropy,
    predicted_over_actual,
)
from prectr.metrics.lists import coverage, mean_reciprocal_rank, ndcg, top_mean
from prectr.metrics.roc import GroupAuc, GroupWeight, auc, group_auc, relative_improvement

__all__ = [
    "CalibrationBins",
    "GroupAuc",
    "GroupWeight",
    "auc",
    "calibration_bins",
    "calibration_error",
    "coverage",
    "group_auc",
    "log_loss",
    "mean_reciprocal_rank",
    "ndcg",
    "normalised_entropy",
    "predicted_over_actual",
    "relative_improvement",
    "top_mean",
]

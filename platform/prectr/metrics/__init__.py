"""Ranking and calibration metrics, vectorised. Every number's definition stands here, because libraries differ.

AUC      probability that a clicked row scores above a not clicked one; ties count one half.
GAUC     mean of per-group AUC, weighted by the group's impressions, clicks, or alike; groups of one class are dropped
         and counted [ours, the paper does not say]. Groups are users, and the weight is impressions, unless stated.
RelaImpr ((AUC - 0.5) / (AUC of the base - 0.5) - 1) * 100 % [paper]; refused for a base at or below 0.5.
log loss mean negative log-likelihood of the clicks, in nats.
NE       normalised entropy: log loss over that of the rows' own click rate; below 1 is better than knowing the rate
         (He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", 2014).
ECE      mean distance of predicted and actual click rate in 20 bins of equal numbers of rows, weighted by rows; rows of
         one probability share a bin [ours], so that the order of rows never matters.
NDCG@k   sum of gain / log2(1 + rank) over the first k of a list, over that of the best order; mean over lists with a
         positive gain.
MRR      mean over lists with a relevant row of 1 / rank of the first relevant one.
top mean mean over lists of the mean value (a level or a grade) of their first k rows.
coverage share of the distinct candidates that are relevant in some list which come into the first k of such a list.

Scores that tie inside a list are in random order: NDCG, MRR, top mean and coverage are the expectation over it [ours],
so that neither the order of rows nor that of the logged positions leaks into a number. A score that is NaN is a
ValueError that says how many are. What has no value (no rows, one class only, no relevant row) is NaN.

Reading order: `ties` (what all rankings are made of), `roc`, `lists`, `calibration`; `slices` (which rows); then
`bootstrap` and `comparison` (how sure one may be). Nothing here reads files or knows a model.
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

"""Metrics of each model on each slice, with intervals and verdicts against the base model.

A figure is the mean over seeds. `low` and `high` hold the variation of users (bootstrap by user) and of seeds;
`sampling_low` and `sampling_high` that of users alone; `seed_spread` is the standard deviation over seeds. The verdict
of a difference follows from its bounds (`prectr.metrics.comparison`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prectr.evaluation.config import EvaluateConfig
from prectr.evaluation.day import ROW_SLICES, Lists, TestDay
from prectr.evaluation.scores import DayScores
from prectr.metrics.bootstrap import UserRows, UserStatistic
from prectr.metrics.comparison import Contrast, DrawnModels, Estimate, ModelFigure, relative_improvements
from prectr.metrics.lists import ndcg_by_list, reciprocal_rank_by_list, top_chance, top_mean_by_list
from prectr.metrics.roc import group_auc

RELEVANT_LEVEL = 2
"""Least expected level, or grade, of a relevant candidate."""


@dataclass(frozen=True)
class Metric:
    """One metric: its name, heading, definition and comparison with the base."""

    name: str
    heading: str
    definition: str
    contrast: Contrast = np.subtract
    higher_is_better: bool = True


def _nearer_to_one(value: np.ndarray, base: np.ndarray) -> np.ndarray:
    return np.abs(value - 1) - np.abs(base - 1)


ROW_METRICS = (
    Metric("auc", "AUC", "a clicked row scores above a not clicked one; ties one half; at the logged position"),
    Metric(
        "gauc",
        "GAUC",
        "mean of per-user AUC weighted by impressions, one-class users dropped and counted; at the logged position",
    ),
    Metric("gauc_request", "GAUC by request", "the same by request; at the logged position"),
    Metric("auc_free", "AUC free", "AUC of the position-free score, as served"),
    Metric("gauc_free", "GAUC free", "GAUC of the position-free score, as served"),
    Metric("logloss", "log loss", "mean negative log-likelihood of clicks, nats", higher_is_better=False),
    Metric("ne", "NE", "log loss over the entropy of the rows' own click rate", higher_is_better=False),
    Metric(
        "ece",
        "ECE, RMS",
        "root mean square of predicted minus actual click rate in 20 bins of equal rows, without the part that chance "
        "gives; below zero: less than chance gives",
        higher_is_better=False,
    ),
    Metric(
        "predicted_over_actual",
        "pred./actual",
        "sum of predicted click probabilities over clicks; nearer to 1 is better",
        _nearer_to_one,
        higher_is_better=False,
    ),
)
"""Metrics of shown rows. Slice `all` has all of them, other slices those of `SLICE_METRICS`."""

SLICE_METRICS = ("auc", "gauc", "auc_free", "gauc_free")

LIST_METRICS = (
    Metric(
        "level_top",
        "mean level of top {top}",
        "mean expected relevance level (0..3) of a list's first {top}; rankers are given these levels: it says how far "
        "a ranker follows them, not whether they are right",
    ),
    Metric(
        "level_ndcg",
        "NDCG of levels",
        "NDCG@{top}, gain 2^expected level - 1, position-free score; of the levels that rankers are given",
    ),
    Metric(
        "coverage",
        "coverage",
        "share of the distinct pairs of an expected level of at least 2 that come into the first {top} of a list; of "
        "the levels that rankers are given",
    ),
    Metric(
        "judged_ndcg",
        "NDCG, judged",
        "NDCG@{top}, gain 2^grade - 1, judged pairs of held-back queries only, whose grades rankers are not given",
    ),
    Metric(
        "judged_mrr", "MRR, judged", "1 / rank of the first pair of grade 2 or 3, of the same pairs as NDCG, judged"
    ),
    Metric("click_ndcg", "NDCG of true clicks", "NDCG@{top}, gain: the true click probability (simulated logs)"),
)
"""Metrics of lists of candidates, ordered by the position-free score."""


def measure(
    day: TestDay,
    models: Mapping[str, Sequence[DayScores]],
    config: EvaluateConfig,
    *,
    base: str,
    improvement_base: str,
    on_slice: Callable[[str], None] = lambda _: None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Compute all figures.

    Args:
        day: the test day.
        models: scores of each seed, by model name; all models have the same number of seeds.
        config: list depth, resamples, level and seed.
        base: model that differences and verdicts compare with.
        improvement_base: model that RelaImpr compares with.
        on_slice: called with the name of each slice before its figures are computed.

    Returns:
        slice -> metric -> model -> figure. Models without the scores that a metric needs are left out of it.
    """
    figures: dict[str, dict[str, dict[str, Any]]] = {}
    for name, rows in day.slices.items():
        on_slice(name)
        slice_rows = _SliceRows(day, rows)
        metrics = [metric for metric in ROW_METRICS if name == "all" or metric.name in SLICE_METRICS]
        figures[name] = {
            metric.name: _compared(
                metric,
                {
                    model: [slice_rows.statistic(metric.name, scores) for scores in seeds]
                    for model, seeds in models.items()
                },
                slice_rows.users.users,
                config,
                base,
                improvement_base if metric.name == "auc" else None,
            )
            for metric in metrics
        }
    if day.lists is None:
        return figures
    listed_models = {
        name: seeds for name, seeds in models.items() if all(scores.unexposed is not None for scores in seeds)
    }
    for name, rows in day.lists.masks().items():
        on_slice(name)
        lists = _ListRows(day.lists, rows, config.top)
        figures[name] = {
            metric.name: _compared(
                metric,
                {
                    model: [lists.statistic(metric.name, scores) for scores in seeds]
                    for model, seeds in listed_models.items()
                },
                lists.users_of(metric.name).users,
                config,
                base,
                None,
            )
            for metric in LIST_METRICS
            if lists.has(metric.name)
        }
    return figures


class _SliceRows:
    """Shown rows of one slice, and the statistics of scores on them."""

    def __init__(self, day: TestDay, rows: np.ndarray) -> None:
        self.rows = rows
        self.users = UserRows(day.user[rows], day.clicked[rows])
        self.request = day.shown["request_id"].to_numpy()[rows]

    def statistic(self, name: str, scores: DayScores) -> UserStatistic | None:
        logged, free = scores.logged[self.rows], scores.free[self.rows]
        if name == "gauc_request":
            return self.users.gauc(logged, self.request)
        of_scores = {"auc": (self.users.auc, logged), "gauc": (self.users.gauc, logged)}
        of_scores |= {"auc_free": (self.users.auc, free), "gauc_free": (self.users.gauc, free)}
        if name in of_scores:
            statistic, score = of_scores[name]
            return statistic(score)
        if scores.probability is None:
            return None
        of_probabilities = {
            "logloss": self.users.log_loss,
            "ne": self.users.normalised_entropy,
            "ece": self.users.calibration_rms,
            "predicted_over_actual": self.users.predicted_over_actual,
        }
        return of_probabilities[name](scores.probability[self.rows])


class _ListRows:
    """Rows of one slice of the lists, and the statistics of scores on them."""

    def __init__(self, lists: Lists, rows: np.ndarray, top: int) -> None:
        self.lists, self.rows, self.top = lists, rows, top
        self.users = UserRows(lists.user[rows], np.zeros(int(rows.sum()), dtype=bool))
        self.request = lists.request[rows]
        self.judged = ~np.isnan(lists.grade[rows])
        self.judged_users = UserRows(lists.user[rows][self.judged], np.zeros(int(self.judged.sum()), dtype=bool))

    def has(self, name: str) -> bool:
        """Whether the log holds the data that the metric needs."""
        if name.startswith("judged"):
            return bool(self.judged.any())
        return name != "click_ndcg" or self.lists.click is not None

    def users_of(self, name: str) -> UserRows:
        """The rows that the metric uses."""
        return self.judged_users if name.startswith("judged") else self.users

    def statistic(self, name: str, scores: DayScores) -> UserStatistic | None:
        assert scores.unexposed is not None
        score = np.r_[scores.free, scores.unexposed][self.lists.row[self.rows]]
        level = self.lists.level[self.rows]
        if name == "coverage":
            chance = top_chance(self.request, score, self.top)
            return self.users.coverage(self.lists.pair[self.rows], level >= RELEVANT_LEVEL, chance)
        if name.startswith("judged"):
            request, judged_score = self.request[self.judged], score[self.judged]
            grade = self.lists.grade[self.rows][self.judged]
            by_list = (
                ndcg_by_list(request, 2.0**grade - 1, judged_score, self.top)
                if name == "judged_ndcg"
                else reciprocal_rank_by_list(request, grade >= RELEVANT_LEVEL, judged_score)
            )
            return self.judged_users.mean_of_lists(request, by_list)
        if name == "level_top":
            by_list = top_mean_by_list(self.request, level, score, self.top)
        elif name == "level_ndcg":
            by_list = ndcg_by_list(self.request, 2.0**level - 1, score, self.top)
        else:
            assert self.lists.click is not None
            by_list = ndcg_by_list(self.request, self.lists.click[self.rows], score, self.top)
        return self.users.mean_of_lists(self.request, by_list)


def _compared(
    metric: Metric,
    statistics: Mapping[str, Sequence[UserStatistic | None]],
    users: int,
    config: EvaluateConfig,
    base: str,
    improvement_base: str | None,
) -> dict[str, Any]:
    """Figures of one metric by model. Without the base's statistics, the first model is the base."""
    defined = {name: [one for one in seeds if one is not None] for name, seeds in statistics.items()}
    complete = {name: seeds for name, seeds in defined.items() if len(seeds) == len(statistics[name])}
    if not complete:
        return {}
    drawn = DrawnModels.of(complete, users, resamples=config.resamples, seed=config.seed)
    compared_base = base if base in complete else next(iter(complete))
    model_figures = drawn.figures(
        compared_base, contrast=metric.contrast, higher_is_better=metric.higher_is_better, level=config.level
    )
    figures = {name: _figure(figure) for name, figure in model_figures.items()}
    if improvement_base in complete:
        improvements = drawn.figures(improvement_base, contrast=relative_improvements, level=config.level)
        for name, figure in improvements.items():
            if figure.against_base is not None:
                figures[name]["rela_impr"] = _estimate(figure.against_base.difference)
    return figures


def _figure(figure: ModelFigure) -> dict[str, Any]:
    against = figure.against_base
    difference = None if against is None else {**_estimate(against.difference), "verdict": against.verdict}
    return {**_estimate(figure.estimate), "difference": difference}


def _estimate(estimate: Estimate) -> dict[str, float]:
    return {
        "value": estimate.value,
        "low": estimate.both.low,
        "high": estimate.both.high,
        "sampling_low": estimate.sampling.low,
        "sampling_high": estimate.sampling.high,
        "seed_spread": estimate.seed_spread,
    }


def describe_slices(day: TestDay, config: EvaluateConfig) -> dict[str, dict[str, Any]]:
    """Describe each slice of shown rows: its rows, clicks, and the users that GAUC counts and drops."""
    descriptions: dict[str, dict[str, Any]] = {}
    no_scores = np.zeros(len(day.clicked))
    for name, rows in day.slices.items():
        clicked = day.clicked[rows]
        grouped = group_auc(day.user[rows], clicked, no_scores[rows])
        descriptions[name] = {
            "what": ROW_SLICES[name].format(cold=config.cold_requests, active=config.active_requests),
            "rows": int(rows.sum()),
            "clicks": int(clicked.sum()),
            "users_in_gauc": grouped.groups,
            "users_dropped": grouped.dropped,
        }
    return descriptions


def describe_lists(lists: Lists, what: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Describe each slice of the lists of candidates: its rows, lists and judged rows."""
    return {
        name: {
            "what": what[name],
            "rows": int(rows.sum()),
            "lists": len(np.unique(lists.request[rows])),
            "judged_rows": int((~np.isnan(lists.grade[rows])).sum()),
        }
        for name, rows in lists.masks().items()
    }

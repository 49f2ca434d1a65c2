"""What the quality benchmark says of one trained ranker, on the test day of a simulated log.

Everything about unexposed candidates, tolerances and the oracle is against the simulator's truth.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from _quality_observer import Observer
from scipy.special import expit, logit
from scipy.stats import spearmanr

from models.debias import with_relevance_changed
from models.fusion import expected_level
from prectr.contracts.model_config import LEVELS
from prectr.contracts.schema import EXPLORE_POLICY
from prectr.data.judgments import read_judged
from prectr.data.tables import Tables
from prectr.features.derive import SOURCES
from prectr.features.load import Samples, split_days
from prectr.metrics import auc, calibration_error, group_auc, log_loss, ndcg, predicted_over_actual
from prectr.training.data import RankerData
from prectr.training.step import TrainingStep

COLD, ACTIVE = 3, 10
BUCKETS = {"0-3": (0, 3), "4-9": (4, 9), "10-29": (10, 29), "30+": (30, 10**9)}
BATCH = 8192
BOOTSTRAPS = 200


@dataclass(frozen=True)
class Scored:
    """A ranker's answers for n rows."""

    free: np.ndarray
    logged: np.ndarray
    clicks_by_level: np.ndarray
    """[n, k] log click probability at each level, after tau."""


class TestDay:
    """The rows that every ranker is judged on, with what really made their clicks likely."""

    def __init__(self, samples: Samples, tables: Path) -> None:
        _, _, self.day = split_days(samples.days())
        self.samples = samples
        self.shown = RankerData(samples, samples.files([self.day]))
        self.candidates = RankerData(samples, samples.files([self.day], "candidates"))
        frame, unexposed = (samples.read(samples.files([self.day], folder)) for folder in ("rows", "candidates"))  # type: ignore[arg-type]
        self.requests = frame["user_requests"].to_numpy()
        self.explore = (frame["policy"] == EXPLORE_POLICY).fill_null(False).to_numpy()
        truth = tables / "truth"
        self.truth = _joined(frame, truth / "impressions" / f"date={self.day}")
        self.candidate_truth = _joined(unexposed, truth / "candidates" / f"date={self.day}")
        self.tolerance = frame.join(
            pl.read_parquet(truth / "users.parquet", columns=["user_id", "t_u"]),
            on="user_id",
            how="left",
            maintain_order="left",
        )["t_u"].to_numpy()
        self.frame, self._unexposed = frame, unexposed
        self.judged = _judged(samples, tables)

    @property
    def clicked(self) -> np.ndarray:
        """[n]"""
        return self.shown.clicked

    @cached_property
    def slices(self) -> dict[str, np.ndarray]:
        """Which rows each slice holds."""
        return {
            "all": np.ones(len(self.clicked), bool),
            "cold": self.requests <= COLD,
            "warm": (self.requests > COLD) & (self.requests < ACTIVE),
            "active": self.requests >= ACTIVE,
            "explore": self.explore,
        }

    @cached_property
    def lists(self) -> tuple[np.ndarray, np.ndarray]:
        """Candidate lists of the requests that kept unexposed ones: list of each row, shown rows then candidates; -1
        for shown rows of other requests. And which rows are unexposed."""
        names = pl.concat([self.frame["request_id"], self._unexposed["request_id"]])
        codes = names.rank("dense").to_numpy().astype(np.int64)
        unexposed = np.r_[np.zeros(len(self.frame), bool), np.ones(len(self._unexposed), bool)]
        kept = np.isin(codes, codes[unexposed])
        return np.where(kept, codes, -1), unexposed


def _joined(rows: pl.DataFrame, truth: Path) -> pl.DataFrame:
    known = pl.read_parquet(truth / "*.parquet", hive_partitioning=False)
    columns = [name for name in ("r", "grade", "threshold", "p_exam", "p_click_given_exam") if name in known.columns]
    found = rows.select("request_id", "item_id").join(
        known.select("request_id", "item_id", *columns), on=["request_id", "item_id"], how="left", maintain_order="left"
    )
    assert not found["p_click_given_exam"].null_count(), f"{truth} lacks rows of the test day"
    return found


def _judged(samples: Samples, tables: Path) -> pl.DataFrame:
    """Judged pairs of held-back queries: pair (row of the samples' pairs), query, grade."""
    held = read_judged(Tables(tables)).filter(pl.col("split") == "held-back").select("query", "item_id", "grade")
    pairs = pl.read_parquet(samples.path / "pairs.parquet", columns=["pair", "query", "item_id"])
    return held.join(pairs, on=["query", "item_id"]).sort("query", "item_id")


@torch.no_grad()
def score(step: TrainingStep, data: RankerData) -> Scored:
    """Score rows, in their order."""
    step.eval()
    order = np.argsort(data.rows.pair, kind="stable")
    free, logged, levels = [], [], []
    for start in range(0, len(order), BATCH):
        index = order[start : start + BATCH]
        inputs, labels, pair = data.batch(index, step.ranker.reads_behaviours)
        output = step.predict(inputs, pair)
        free.append(output.click_logit.numpy())
        logged.append(step.ranker.with_position(output.click_logit, labels.position).numpy())
        clicks = output.level_click_logits
        if step.ranker.config.incentive.form == "odds":
            clicks = clicks + output.incentive.unsqueeze(-1)
        levels.append(torch.nn.functional.logsigmoid(clicks).numpy())
    back = np.argsort(order, kind="stable")
    return Scored(*(np.concatenate(part)[back].astype(np.float64) for part in (free, logged, levels)))


def ranking_figures(day: TestDay, free: np.ndarray, logged: np.ndarray, candidates: np.ndarray) -> dict[str, float]:
    """Figures of any scores: shown rows position-free and at the logged position, and unexposed candidates."""
    return shown_figures(day, free, logged) | candidate_figures(day, free, candidates)


def shown_figures(day: TestDay, free: np.ndarray, logged: np.ndarray) -> dict[str, float]:
    """Figures of the shown rows alone."""
    made: dict[str, float] = {}
    user = day.shown.user
    for name, rows in day.slices.items():
        made[f"{name}.auc"] = auc(day.clicked[rows], logged[rows])
        by_user = group_auc(user[rows], day.clicked[rows], logged[rows])
        made[f"{name}.gauc"], made[f"{name}.gauc_error"] = by_user.value, by_user.error
        made[f"{name}.auc_free"] = auc(day.clicked[rows], free[rows])
        made[f"{name}.gauc_free"] = group_auc(user[rows], day.clicked[rows], free[rows]).value
        # Without the noise of single clicks: how well the score orders what the truth says of the rows.
        made[f"{name}.truth_free"] = float(
            spearmanr(free[rows], day.truth["p_click_given_exam"].to_numpy()[rows]).statistic
        )
    probability = expit(logged)
    made["logloss"] = log_loss(day.clicked, probability)
    made["ece"] = calibration_error(day.clicked, probability)
    made["predicted_over_actual"] = predicted_over_actual(day.clicked, probability)
    return made


def candidate_figures(day: TestDay, free: np.ndarray, candidates: np.ndarray) -> dict[str, float]:
    """Ranking shown and unexposed candidates of a request together, by the position-free score."""
    lists, unexposed = day.lists
    kept = lists >= 0
    scores = np.r_[free, candidates][kept]
    truth = {
        name: np.r_[day.truth[name].to_numpy(), day.candidate_truth[name].to_numpy()][kept]
        for name in ("p_click_given_exam", "grade", "r")
    }
    of_list, hidden = lists[kept], unexposed[kept]
    top = ndcg(of_list, truth["p_click_given_exam"], scores, 10)
    grades = ndcg(of_list, 2.0 ** truth["grade"] - 1, scores, 10)
    return {
        "candidates.ndcg_click": top,
        "candidates.ndcg_grade": grades,
        "candidates.unexposed_spearman": float(
            spearmanr(scores[hidden], truth["p_click_given_exam"][hidden]).statistic
        ),
        "candidates.unexposed_mean_ratio": float(
            expit(scores[hidden]).mean() / truth["p_click_given_exam"][hidden].mean()
        ),
        "candidates.irrelevant_on_top": _irrelevant_on_top(of_list, scores, truth["grade"]),
    }


def _irrelevant_on_top(lists: np.ndarray, scores: np.ndarray, grade: np.ndarray, top: int = 10) -> float:
    """Share of the first ten places that items of grade 0 take."""
    order = np.lexsort((-scores, lists))
    ordered = lists[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    place = np.arange(len(order)) - np.repeat(first, np.diff(np.r_[first, len(order)]))
    return float((grade[order][place < top] == 0).mean())


def implied_tolerance(day: TestDay, by_level: np.ndarray, threshold: np.ndarray, name: str) -> dict[str, float]:
    """Spearman of log mean(c_1, c_2) - log c_3 with a true threshold, both a user's mean over rows.

    A tolerant user clicks weaker levels nearly as much as strong ones, so the threshold's sign is turned.

    Args:
        day: whose users.
        by_level: [n, k] log click probability at each level.
        threshold: [n], the user's part of it or the whole.
        name: what the figures are called, before the bucket.
    """
    learnt = np.logaddexp(by_level[:, 1], by_level[:, 2]) - np.log(2) - by_level[:, 3]
    users = pl.DataFrame({"user": day.shown.user, "learnt": learnt, "true": -threshold, "requests": day.requests})
    users = users.group_by("user").agg(pl.col("learnt", "true").mean(), pl.col("requests").max())
    made = {}
    for bucket, (low, high) in BUCKETS.items():
        part = users.filter(pl.col("requests").is_between(low, high))
        if len(part) > 20 and min(part["learnt"].std(), part["true"].std()) > 1e-9:  # type: ignore[type-var, operator]
            made[f"{name}.{bucket}"] = float(spearmanr(part["learnt"], part["true"]).statistic)
    return made


@torch.no_grad()
def clicks_if_level(step: TrainingStep, data: RankerData) -> np.ndarray:
    """[n, k] log click probability of each row, were its relevance that of each level.

    Beside the level's head, the numbers that a row's relevance is part of are those of the level
    (`models.debias`): c_i of a row that is not of level i is asked about numbers that contradict it, and answers
    little about the user.
    """
    step.eval()
    ranker = step.ranker
    numbers = ranker.sizes.relevance
    made = []
    for start in range(0, len(data), BATCH):
        inputs, labels, pair = data.batch(np.arange(start, min(start + BATCH, len(data))), ranker.reads_behaviours)
        text = step.text(pair)
        levels = ranker.relevance(text, inputs.match, inputs.numeric).softmax(-1)
        tau = ranker.incentive_of(inputs, levels)
        own = expected_level(labels.level_soft)
        answers = []
        for level in range(LEVELS):
            at = torch.full_like(own, level / (LEVELS - 1))
            changed = with_relevance_changed(inputs, at - own, numbers)
            incentive = tau if tau.dim() == 1 else tau[:, level]
            answers.append(ranker.base(changed, text, at)[:, level] + incentive)
        made.append(torch.nn.functional.logsigmoid(torch.stack(answers, -1)).numpy())
    return np.concatenate(made).astype(np.float64)


@torch.no_grad()
def judged_figures(day: TestDay, step: TrainingStep) -> dict[str, float]:
    """How well the ranker's levels, by text alone (no look-up), order judged pairs of queries that were held back."""
    if not hasattr(step.ranker, "relevance"):
        return {}
    step.eval()
    pairs = day.judged["pair"].to_numpy()
    match = torch.from_numpy(day.samples.pairs.match[pairs]).clone()
    match[:, :LEVELS] = 0.0
    numeric = torch.zeros(len(pairs), step.ranker.sizes.numeric)  # read for the source of a look-up only
    text = step.text(torch.from_numpy(pairs.astype(np.int64)))
    probability = step.ranker.relevance(text, match, numeric).softmax(-1).numpy()
    expected = probability @ np.arange(LEVELS)
    grade = day.judged["grade"].to_numpy()
    query = day.judged["query"].rank("dense").to_numpy().astype(np.int64)
    return {
        "judged.auc": auc(grade >= 2, expected),
        "judged.ndcg": ndcg(query, 2.0**grade - 1, expected, 10),
        "judged.spearman": float(spearmanr(expected, grade).statistic),
        "judged.logloss": float(-np.log(np.clip(probability[np.arange(len(grade)), grade], 1e-7, 1)).mean()),
    }


def all_figures(day: TestDay, step: TrainingStep) -> dict[str, float]:
    """Everything about a trained ranker."""
    shown, candidates = score(step, day.shown), score(step, day.candidates)
    return {
        **ranking_figures(day, shown.free, shown.logged, candidates.free),
        **implied_tolerance(day, shown.clicks_by_level, day.tolerance, "tolerance"),
        **_implied_by_change(day, step),
        **judged_figures(day, step),
    }


def _implied_by_change(day: TestDay, step: TrainingStep) -> dict[str, float]:
    if not hasattr(step.ranker, "relevance"):
        return {}
    by_level = clicks_if_level(step, day.shown)
    whole = day.truth["threshold"].to_numpy()
    return {
        **implied_tolerance(day, by_level, day.tolerance, "tolerance_if"),
        **implied_tolerance(day, by_level, whole, "threshold_if"),
    }


def student_figures(day: TestDay) -> dict[str, float]:
    """The student's expected level (0..1) beside the true relevance, on pairs that only the student knows.

    Over distinct pairs, shown on the test day or candidates that were not. `lexical` is the match feature with the
    highest correlation on those very pairs. Errors are standard deviations over draws of queries with replacement.
    """
    samples = day.samples
    unknown = samples.sources == SOURCES.index("encoder")
    made: dict[str, float] = {}
    for name, frame, truth in (
        ("unexposed", day._unexposed, day.candidate_truth),
        ("shown", day.frame, day.truth),
    ):
        _, first = np.unique(frame["pair"].to_numpy(), return_index=True)
        first = first[unknown[frame["pair"].to_numpy()[first]]]
        rows = frame[first]
        query = rows["query"].rank("dense").to_numpy().astype(np.int64) - 1
        true = truth["r"].to_numpy()[first]
        told = rows["numeric.encoder_expected"].to_numpy().astype(np.float64)
        lexical = samples.pairs.match[rows["pair"].to_numpy(), LEVELS:].astype(np.float64)
        rng = np.random.default_rng(0)
        draws = [np.ones(len(true))]
        for _ in range(BOOTSTRAPS):
            draws.append(
                np.bincount(rng.integers(0, query.max() + 1, query.max() + 1), minlength=query.max() + 1)[query]
            )
        correlations = np.array([_correlations(told, lexical, true, weight) for weight in draws])
        means = np.array([(np.average(told, weights=weight), np.average(true, weights=weight)) for weight in draws])
        best = correlations[0, 1:].argmax() + 1
        values = {
            "correlation": correlations[:, 0],
            "lexical": correlations[:, best],
            "above_lexical": correlations[:, 0] - correlations[:, best],
            "mean": means[:, 0],
            "true_mean": means[:, 1],
            "mean_above_truth": means[:, 0] - means[:, 1],
        }
        for figure, value in values.items():
            made[f"student.{name}_{figure}"] = float(value[0])
            made[f"student.{name}_{figure}_error"] = float(value[1:].std())
        made[f"student.{name}_pairs"] = float(len(true))
    return made


def _correlations(told: np.ndarray, lexical: np.ndarray, true: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted Pearson correlation with the truth [n] of the told levels [n], and the size of that of each feature."""
    columns = np.column_stack([told, lexical])
    columns = columns - np.average(columns, axis=0, weights=weight)
    true = true - np.average(true, weights=weight)
    scale = np.sqrt((weight @ columns**2) * (weight @ true**2))
    found = (weight * true) @ columns / np.maximum(scale, 1e-12)
    return np.concatenate([found[:1], np.abs(found[1:])])


def oracle_figures(day: TestDay) -> dict[str, Any]:
    """The same of the truth itself."""
    free = np.log(np.clip(day.truth["p_click_given_exam"].to_numpy(), 1e-9, 1))
    chance = day.truth["p_click_given_exam"].to_numpy() * day.truth["p_exam"].to_numpy()
    logged = np.log(np.clip(chance, 1e-9, 1)) - np.log1p(-np.clip(chance, 0, 1 - 1e-9))
    candidates = np.log(np.clip(day.candidate_truth["p_click_given_exam"].to_numpy(), 1e-9, 1))
    return ranking_figures(day, free, logged, candidates)


def observer_figures(day: TestDay, tables: Path) -> dict[str, float]:
    """Of the observer who knows everything but what only clicks can tell; shown rows only."""
    observer = Observer(tables, day.day, day.frame)
    free, examined = observer.click_probability()
    return shown_figures(day, np.log(free), logit(free * examined)) | {"observer.unexplained": observer.unexplained}

"""The weight of exposure debias, measured on the log before a training [ours].

Debias teaches rows that no log has, so a loss of logged rows cannot say whether it helps; whether it does differs from
log to log. Where `model.exposure.weight` is null, short trainings without text vectors compare weight 0 with those of
`TRIED` on the validation day, by two judges that every log with kept candidates has:

    candidates   NDCG@10 of the shown and the unexposed candidates of a request, gain sum_i p_i (2^i - 1)
    clicks       log-likelihood of a click at its position, on randomised requests; on all, where these are too few

p are the looked-up levels. Levels alone would favour every debias, because it ranks by level; clicks alone are noisy. A
weight is taken if it gains by both, by the first more than `LEAST_ERRORS` standard errors (queries are the sample); of
several, the one that gains most there. Else debias is off.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from prectr.contracts.model_config import LEVELS, ModelConfig
from prectr.contracts.schema import EXPLORE_POLICY
from prectr.data.tables import read_footer
from prectr.features.load import Samples, split_days
from prectr.metrics.lists import ndcg_by_list
from prectr.training.config import TrackingConfig, TrainConfig
from prectr.training.data import RankerData
from prectr.training.ranker_loop import Run, predict
from prectr.training.shards import ShardPlan
from prectr.training.step import TrainingStep
from prectr.training.workers import Workers

TRIED = (0.03, 0.3)
"""Weights that are compared with 0."""
PILOT_ROWS = 100_000
"""Newest training rows that a pilot is trained on, at most, give or take a file."""
PILOT_SHARE = 0.05
"""Share of the rows of the training's epochs that a pilot is trained on, at most."""
JUDGING_ROWS = 200_000
"""Shown rows of the validation day that judge, give or take a file, with the candidates of the same users."""
LEAST_ERRORS = 2.0
LEAST_CLICKS = 100
"""Clicks on randomised requests below which all clicks judge."""


def needs_measuring(model: ModelConfig) -> bool:
    """Whether a model's weight of debias is left to the log."""
    return model.name == "prectr-v2" and model.debias and model.exposure.weight is None


def with_measured_weight(loop: dict[str, Any], workers: Workers) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Replace a null weight in a training's configuration by the measured one.

    Args:
        loop: as of `ranker_loop.Run`.
        workers: of the training; the first one measures, and all must call this.

    Returns:
        The loop, and facts for the manifest: `weight`, and for each weight tried the gains with their errors, or why
        nothing could be measured; None if the weight was given.
    """
    config = TrainConfig.model_validate(loop["config"])
    if not needs_measuring(config.model):
        return loop, None
    facts = workers.from_first(lambda: _measure(loop, config))
    resolved = _with_weight(config, facts["weight"])
    return {**loop, "config": resolved.model_dump(mode="json")}, facts


def _with_weight(config: TrainConfig, weight: float) -> TrainConfig:
    exposure = config.model.exposure.model_copy(update={"weight": weight})
    return config.model_copy(update={"model": config.model.model_copy(update={"exposure": exposure})})


def _measure(loop: dict[str, Any], config: TrainConfig) -> dict[str, Any]:
    samples = Samples.open(Path(loop["samples"]))
    _, validation_day, _ = split_days(samples.days())
    shown = _first(samples.files([validation_day]), JUDGING_ROWS)
    names = {file.name for file in shown}  # a block of users has one name in both folders
    candidates = [file for file in samples.files([validation_day], "candidates") if file.name in names]
    if not candidates:
        return {"weight": 0.0, "why": f"no unexposed candidates of the validation day {validation_day} are kept"}
    judges = _Judges(samples, shown, candidates)

    training_days, _, _ = split_days(samples.days())
    rows = config.epochs * ShardPlan.of(samples.files(training_days), config.rows_in_memory).total

    @cache
    def load(files: tuple[Path, ...]) -> RankerData:
        return RankerData(samples, files)

    def scored(weight: float) -> tuple[np.ndarray, np.ndarray]:
        with TemporaryDirectory() as out:
            pilot = _Pilot(loop, _pilot_config(config, weight), Path(out), samples, rows, load)
            return judges.answers(pilot.trained_step())

    return choose(judges, {weight: scored(weight) for weight in (0.0, *TRIED)})


def choose(judges: "_Judges", answers: dict[float, tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """Weight and facts from what the pilots answered.

    Args:
        judges: the validation day.
        answers: weight -> NDCG of each list and log-likelihood of each click row, as of `_Judges.answers`; 0 included.
    """
    tried = {}
    for weight in answers:
        if weight:
            gains = [after - before for before, after in zip(answers[0.0], answers[weight], strict=True)]
            tried[weight] = (_mean(gains[0], judges.query_of_list), _mean(gains[1], judges.user_of_click))
    better = [
        weight for weight, ((gain, error), (clicks, _)) in tried.items() if gain > LEAST_ERRORS * error and clicks > 0
    ]
    chosen = max(better, key=lambda weight: tried[weight][0][0], default=0.0)
    return {
        "weight": chosen,
        "clicks": "randomised" if judges.randomised else "all",
        "tried": {
            str(weight): {
                name: {"gain": round(gain, 6), "error": round(error, 6)}
                for name, (gain, error) in zip(("candidates", "clicks"), gains, strict=True)
            }
            for weight, gains in tried.items()
        },
    }


def _pilot_config(config: TrainConfig, weight: float) -> TrainConfig:
    """One pass without text vectors: levels are the looked-up ones."""
    fusion = config.model.fusion.model_copy(update={"text_width": 0, "trust": (1.0, 1.0, 1.0)})
    model = config.model.model_copy(update={"fusion": fusion, "encoder": "frozen"})
    changed = {
        "model": model,
        "start_from": None,
        "epochs": 1,
        "evaluations_per_epoch": 1,
        "tracking": TrackingConfig(),
    }
    return _with_weight(config.model_copy(update=changed), weight)


class _Pilot(Run):
    """A short training on the newest rows, alone, that leaves nothing behind."""

    def __init__(
        self,
        loop: dict[str, Any],
        config: TrainConfig,
        out: Path,
        samples: Samples,
        rows: int,
        load: Callable[[tuple[Path, ...]], RankerData],
    ) -> None:
        def build(model: ModelConfig, spec: Any, encoder: Path) -> Any:
            ranker: Any = loop["build_ranker"](model, spec, encoder)
            ranker.uses_text = False
            return ranker

        self._opened, self._load, self._rows = samples, load, rows
        own = {**loop, "config": config.model_dump(mode="json"), "out": str(out), "build_ranker": build}
        super().__init__({**own, "finish": lambda *_: None, "report": lambda _: True}, Workers())

    def open(self, path: Path) -> Samples:
        """The samples that all pilots share."""
        return self._opened

    def training_files(self, files: Sequence[Path]) -> list[Path]:
        """The newest, as many as the limits allow."""
        return _first(files[::-1], min(PILOT_ROWS, int(self._rows * PILOT_SHARE)))[::-1]

    def load(self, files: Sequence[Path]) -> RankerData:
        """Rows that all pilots share."""
        return self._load(tuple(files))

    def trained_step(self) -> TrainingStep:
        """Train, and return the step with the last state."""
        self.run()
        return self.step

    def _evaluate(self, trackers: Any) -> bool:
        """Keep the last state: the judges validate."""
        self._best = {name: value.clone() for name, value in self.ranker.state_dict().items()}
        return True


class _Judges:
    """The validation day, as it judges pilots.

    Attributes:
        randomised: whether clicks of randomised requests judge.
        query_of_list: [lists] query of each request that has candidates.
        user_of_click: [clicks] user of each row whose click judges.
    """

    def __init__(self, samples: Samples, shown_files: Sequence[Path], candidate_files: Sequence[Path]) -> None:
        files = (shown_files, candidate_files)
        self._shown, self._candidates = (RankerData(samples, part) for part in files)
        frames = [samples.read(part, ["request_id", "user_id", "query", "policy"]) for part in files]
        randomised = (frames[0]["policy"] == EXPLORE_POLICY).fill_null(False).to_numpy()
        self.randomised = int(self._shown.clicked[randomised].sum()) >= LEAST_CLICKS
        self._judging = randomised if self.randomised else np.ones(len(self._shown), bool)
        self.user_of_click = frames[0]["user_id"].to_numpy()[self._judging]
        rows = pl.concat([frame.select("request_id", "query") for frame in frames])
        self._in_lists = rows["request_id"].is_in(frames[1]["request_id"].unique().implode()).to_numpy()
        self._list = rows["request_id"].to_numpy()[self._in_lists]
        self.query_of_list = (
            rows.filter(pl.Series(self._in_lists)).unique("request_id").sort("request_id")["query"].to_numpy()
        )
        pair = np.concatenate([self._shown.rows.pair, self._candidates.rows.pair])[self._in_lists]
        self._gain = samples.pairs.levels[pair].astype(np.float64) @ (2.0 ** np.arange(LEVELS) - 1)

    def answers(self, step: TrainingStep) -> tuple[np.ndarray, np.ndarray]:
        """NDCG of each list [lists], and the log-likelihood of each judging row's click [clicks]."""
        free, logged = predict(step, self._shown)
        unexposed, _ = predict(step, self._candidates)
        scores = np.concatenate([free, unexposed])[self._in_lists]
        by_list = ndcg_by_list(self._list, self._gain, scores, 10)
        logit = np.where(self._shown.clicked, logged, -logged)[self._judging].astype(np.float64)
        return np.nan_to_num(by_list), -np.logaddexp(0.0, -logit)


def _first(files: Sequence[Path], rows: int) -> list[Path]:
    """The first files that hold so many rows together, one at least."""
    counts = np.cumsum([read_footer(file).num_rows for file in files])
    return list(files[: int(np.searchsorted(counts, rows)) + 1])


def _mean(values: np.ndarray, unit: np.ndarray) -> tuple[float, float]:
    """Mean of values [n] and its standard error, with the units [n] as the sample."""
    codes = np.unique(unit, return_inverse=True)[1]
    mean = float(values.mean())
    rest = np.bincount(codes, weights=values - mean)
    return mean, float(np.sqrt((rest**2).sum()) / len(values))

"""Letting a new model in: whether a day's figures allow it, and what is served to whom afterwards.

Two models are served at most: `current`, and `next` on a share of the users that grows by one step of the ramp a day,
as long as the model of the day is not worse. After the last step `next` becomes `current`. A day on which the new model
is worse stops the ramp; one on which what is served as `next` is worse, too, ends it.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from prectr.core.config import FrozenConfig, load_config
from prectr.serving.config import ExperimentSplit, ModelsConfig

CURRENT, NEXT = "current", "next"
EXPERIMENT = "daily"

Outcome = Literal["enters", "ramps", "becomes current", "is worse", "is worse, and so is what ramped"]


class Judged(FrozenConfig):
    """How a model did against what is served."""

    metric: str
    difference: float
    low: float
    high: float
    verdict: str
    worse: bool


def judge(evaluation: Mapping[str, Any], model: str, metric: str, margin: float) -> Judged:
    """Whether a model is worse than the base of an evaluation.

    Args:
        evaluation: content of `evaluation.json`.
        model: its name there.
        metric: of the slice `all`.
        margin: how much of the metric may be lost where the intervals cannot tell the two apart.

    Returns:
        the difference; `worse` if the interval says so, the loss is above the margin, or the metric is undefined.
    """
    lower_is_better = metric in ("logloss", "ne", "ece")
    told = evaluation["figures"]["all"][metric][model]["difference"]
    figures = {name: math.nan if told[name] is None else float(told[name]) for name in ("value", "low", "high")}
    gain = -figures["value"] if lower_is_better else figures["value"]
    return Judged(
        metric=metric,
        difference=figures["value"],
        low=figures["low"],
        high=figures["high"],
        verdict=told["verdict"],
        worse=told["verdict"] == "worse" or not gain >= -margin,
    )


def after(
    models: ModelsConfig, new: Path, ramp: tuple[float, ...], new_is_worse: bool, next_is_worse: bool
) -> tuple[ModelsConfig, Outcome]:
    """What is served after a day.

    Args:
        models: what is served; `current` is among its bundles.
        new: the bundle of the day.
        ramp: shares of the users, rising.
        new_is_worse: than `current`.
        next_is_worse: what is served as `next`, than `current`.
    """
    share = models.experiment.shares.get(NEXT)
    if new_is_worse:
        if share is not None and next_is_worse:
            return _serving(models, models.bundles[CURRENT], None, 0.0), "is worse, and so is what ramped"
        return models, "is worse"
    steps = [step for step in ramp if share is None or step > share]
    if not steps:
        return _serving(models, new, None, 0.0), "becomes current"
    return _serving(models, models.bundles[CURRENT], new, steps[0]), "enters" if share is None else "ramps"


def _serving(models: ModelsConfig, current: Path, following: Path | None, share: float) -> ModelsConfig:
    """`models` with these two, and whatever else the user serves."""
    others = {name: path for name, path in models.bundles.items() if name not in (CURRENT, NEXT)}
    arms = {CURRENT: current} | ({} if following is None else {NEXT: following})
    shadow = None if models.shadow is not None and models.shadow.model == NEXT and following is None else models.shadow
    return ModelsConfig(
        bundles=arms | others,
        default_model=CURRENT,
        experiment=ExperimentSplit(
            name=EXPERIMENT,
            salt=models.experiment.salt,
            shares={} if following is None else {NEXT: share},
        ),
        shadow=shadow,
    )


def read_models(file: Path) -> ModelsConfig | None:
    """The content of a file of models; None where there is none.

    Raises:
        UsageError: it cannot be read.
    """
    return load_config(ModelsConfig, file) if file.is_file() else None


def write_models(models: ModelsConfig, file: Path) -> None:
    """Write a file of models so that a server that watches it sees the old one or the new one."""
    absolute = models.model_copy(update={"bundles": {name: path.absolute() for name, path in models.bundles.items()}})
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    aside.write_text(yaml.safe_dump(absolute.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    os.replace(aside, file)

"""Roll a new model out: the decision from a day's figures, and the models that are served after it.

At most two models are served: `current`, and `next` on a share of the users. The share grows by one step of the ramp a
day, as long as the model of the day is not worse than `current`. After the last step `next` becomes `current`.

| outcome | the day's model | served afterwards |
|---|---|---|
| `started` | is not worse; nothing was ramping | `next` on the first share of the ramp |
| `advanced` | is not worse; a ramp was under way | `next` on the following share |
| `promoted` | is not worse; the ramp is at its end | everybody gets it as `current` |
| `rejected` | is worse | what was served before |
| `rolled_back` | is worse, and so is `next` | `current` alone |
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

Outcome = Literal["started", "advanced", "promoted", "rejected", "rolled_back"]


class Judged(FrozenConfig):
    """A model compared with the one served."""

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
        margin: largest loss of the metric that is accepted where the interval shows no difference.

    Returns:
        the difference; `worse` if the interval says so, the loss is above the margin, or the metric is undefined.
    """
    lower_is_better = metric in ("logloss", "ne", "ece")
    difference = evaluation["figures"]["all"][metric][model]["difference"]
    figures = {
        name: math.nan if difference[name] is None else float(difference[name]) for name in ("value", "low", "high")
    }
    gain = -figures["value"] if lower_is_better else figures["value"]
    return Judged(
        metric=metric,
        difference=figures["value"],
        low=figures["low"],
        high=figures["high"],
        verdict=difference["verdict"],
        worse=difference["verdict"] == "worse" or not gain >= -margin,
    )


def after(
    models: ModelsConfig, new: Path, ramp: tuple[float, ...], new_is_worse: bool, next_is_worse: bool
) -> tuple[ModelsConfig, Outcome]:
    """The models to serve after a day, and the outcome.

    Args:
        models: what is served; `current` is among its bundles.
        new: the bundle of the day.
        ramp: shares of the users, rising.
        new_is_worse: whether the bundle of the day is worse than `current`.
        next_is_worse: whether `next` is worse than `current`.
    """
    share = models.experiment.shares.get(NEXT)
    if new_is_worse:
        if share is not None and next_is_worse:
            return _serving(models, models.bundles[CURRENT], None, 0.0), "rolled_back"
        return models, "rejected"
    steps = [step for step in ramp if share is None or step > share]
    if not steps:
        return _serving(models, new, None, 0.0), "promoted"
    return _serving(models, models.bundles[CURRENT], new, steps[0]), "started" if share is None else "advanced"


def _serving(models: ModelsConfig, current: Path, following: Path | None, share: float) -> ModelsConfig:
    """`models` with these two arms; further bundles of the user stay."""
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

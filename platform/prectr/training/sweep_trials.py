"""One trial of a sweep: the training loop as a function, without Ray Train.

A worker group would cost more time than a small trial. `prectr train` trains the final ranker.
"""

import difflib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from prectr.core.config import assign_path
from prectr.core.errors import PrectrError, UsageError
from prectr.training.config import TrackingConfig, TrainConfig
from prectr.training.sweep_config import SweepConfig
from prectr.training.sweep_ledger import REACHED

POINT, FAILED = "point", "failed"
ITERATION = "training_iteration"
"""Ray Tune's key of the number of a trial's results."""
_FIXED: dict[str, Any] = {"workers": 1, "tracking": TrackingConfig().model_dump(mode="json")}


def run_trial(
    proposal: Mapping[str, Any],
    *,
    sweep: SweepConfig,
    train: TrainConfig,
    samples: Path,
    encoder: Path,
    build_ranker: Callable[..., Any],
) -> None:
    """Train one proposed configuration and report every validation to Ray Tune.

    Args:
        proposal: settings in Optuna's form.
        sweep: settings of the sweep.
        train: settings of training; the proposal replaces the searched ones.
        samples: artifact of `build-samples`.
        encoder: artifact of `distill`.
        build_ranker: function that builds a ranker, as for the training loop.
    """
    import torch
    from ray import tune

    from prectr.training.ranker_loop import Run
    from prectr.training.workers import Workers

    config = drawn_config(train, sweep.settings(proposal))
    torch.set_num_threads(config.cpus)
    better, worst = (max, 0.0) if sweep.mode == "max" else (min, 1e9)
    values: list[float] = []

    def report(point: dict[str, Any]) -> bool:
        # GAUC is NaN if no user of the validation day has both clicks and skips; Optuna takes numbers only.
        values.append(float(np.nan_to_num(point[sweep.metric], nan=worst)))
        best = better(values)
        tune.report({REACHED: best, POINT: {**point, REACHED: best}})
        return True

    with tempfile.TemporaryDirectory() as out:
        loop = {
            "config": config.model_dump(mode="json"),
            "samples": str(samples),
            "encoder": str(encoder),
            "out": out,
            "build_ranker": build_ranker,
            "finish": _write_nothing,
            "report": report,
        }
        try:
            Run(loop, Workers()).run()
        except PrectrError as error:  # reported as a result, because Tune would restart a trial that raises
            tune.report({REACHED: worst, FAILED: str(error)})


def drawn_config(train: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """Configuration of a trial: `train` with the drawn `settings`, one worker and no trackers.

    Args:
        train: settings of training.
        settings: dotted name of a setting of `train` -> value.

    Raises:
        UsageError: a setting does not exist or has an invalid value; the message names it.
    """
    values: dict[str, Any] = {**train.model_dump(mode="json"), **_FIXED}
    names = {name for name in _dotted_names(values) if name.split(".")[0] not in _FIXED}
    for name, value in settings.items():
        if name not in names:
            nearest = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean '{nearest[0]}'?" if nearest else " `prectr config show` lists them under `train`."
            raise UsageError(f"sweep.search: train has no setting '{name}'.{hint}")
        assign_path(values, name.split("."), value)
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        setting = ".".join(str(part) for part in problem["loc"]) or ", ".join(settings)
        raise UsageError(f"sweep.search: train.{setting}: {problem['msg']} (drawn: {dict(settings)}).") from None


def _dotted_names(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings of nested sections."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _dotted_names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _write_nothing(ranker: Any, out: Path) -> None:
    """Write no bundle: a trial's ranker is not used."""

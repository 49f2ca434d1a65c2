"""Trials of a sweep: the training loop as a function without Ray Train, and the ledger of finished trials.

A worker group would cost more time than a small trial; `prectr train` trains the final ranker. Ray Tune saves its state
every ten seconds at best, so a killed driver would forget the trials that ended since. The ledger writes a small file
as soon as a trial ends; the next driver passes the results to Optuna and ASHA and runs only the missing trials.
"""

import difflib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from prectr.core.artifacts import write_json
from prectr.core.config import assign_path
from prectr.core.errors import PrectrError, UsageError, quoted, shorten
from prectr.training.config import TrackingConfig, TrainConfig
from prectr.training.sweep_config import SweepConfig

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

    from prectr.training.debias_weight import with_measured_weight
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
            workers = Workers()
            measured, _ = with_measured_weight(loop, workers)
            Run(measured, workers).run()
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
            raise UsageError(f"sweep.search: train has no setting {quoted(name)}.{hint}")
        assign_path(values, name.split("."), value)
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        setting = ".".join(str(part) for part in problem["loc"]) or ", ".join(settings)
        raise UsageError(
            f"sweep.search: train.{setting}: {shorten(problem['msg'])} (drawn: {quoted(dict(settings), 300)})."
        ) from None


def _dotted_names(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings of nested sections."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _dotted_names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _write_nothing(ranker: Any, out: Path) -> None:
    """Write no bundle: a trial's ranker is not used."""


REACHED = "reached"
"""Key of the best value of the searched metric so far. Optuna and ASHA compare it, because `train` keeps the best
state, not the last."""


@dataclass(frozen=True)
class Trial:
    """One trial of a sweep.

    Attributes:
        settings: dotted name of a setting of `train` -> value of the trial.
        points: metrics of each validation, with `REACHED`.
        seconds: duration; None without a validation.
        error: reason of the failure; None if it did not fail.
    """

    settings: dict[str, Any]
    points: list[dict[str, Any]]
    seconds: float | None
    error: str | None = None

    @property
    def best(self) -> float | None:
        """Best value of the searched metric; None without a validation."""
        return self.points[-1][REACHED] if self.points else None


class TrialLedger:
    """A folder of finished trials, one JSON file each, written atomically."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, trial: Trial) -> None:
        """Add a trial that ended or was stopped early. Do not add failed trials: a resumed sweep runs them again."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_json(self._folder / f"trial-{len(self._files()):05d}.json", asdict(trial))

    def read(self) -> list[Trial]:
        """Read all trials, in the order in which they ended."""
        return [Trial(**json.loads(file.read_text(encoding="utf-8"))) for file in self._files()]

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("trial-*.json"))

"""One trial of a sweep: the training loop as a plain function, no Ray Train around it.

A worker group for each trial would cost more than a small trial itself; the final fit is `prectr train`'s.
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
"""Ray Tune's count of a trial's results."""
_NOT_OF_A_TRIAL: dict[str, Any] = {"workers": 1, "tracking": TrackingConfig().model_dump(mode="json")}


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
        proposal: in Optuna's form.
        sweep: what is searched.
        train: the settings around the searched ones.
        samples: artifact of `build-samples`.
        encoder: artifact of `distill`.
        build_ranker: as the loop's.
    """
    import torch
    from ray import tune

    from prectr.training.ranker_loop import Run
    from prectr.training.workers import Workers

    config = drawn_config(train, sweep.settings(proposal))
    torch.set_num_threads(config.cpus)
    better, worst = (max, 0.0) if sweep.mode == "max" else (min, 1e9)
    reached: list[float] = []

    def report(point: dict[str, Any]) -> bool:
        # GAUC is NaN where no user of the validation day has both clicks and skips; Optuna takes numbers only.
        reached.append(float(np.nan_to_num(point[sweep.metric], nan=worst)))
        best = better(reached)
        tune.report({REACHED: best, POINT: {**point, REACHED: best}})
        return True

    with tempfile.TemporaryDirectory() as out:
        loop = {
            "config": config.model_dump(mode="json"),
            "samples": str(samples),
            "encoder": str(encoder),
            "out": out,
            "build_ranker": build_ranker,
            "finish": _nothing,
            "report": report,
        }
        try:
            Run(loop, Workers()).run()
        except PrectrError as error:  # told as a result: Tune would start the trial again, as after a lost machine
            tune.report({REACHED: worst, FAILED: str(error)})


def drawn_config(train: TrainConfig, drawn: Mapping[str, Any]) -> TrainConfig:
    """The configuration of a trial: `drawn` settings put into `train`; a trial is one worker and tracks nothing.

    Raises:
        UsageError: a drawn setting does not exist, or has a value that it cannot have; names it.
    """
    values: dict[str, Any] = {**train.model_dump(mode="json"), **_NOT_OF_A_TRIAL}
    valid = {name for name in _dotted(values) if name.split(".")[0] not in _NOT_OF_A_TRIAL}
    for name, value in drawn.items():
        if name not in valid:
            nearest = difflib.get_close_matches(name, valid, n=1)
            hint = f" Did you mean '{nearest[0]}'?" if nearest else " `prectr config show` lists them below `train`."
            raise UsageError(f"sweep.search: train has no setting '{name}'.{hint}")
        assign_path(values, name.split("."), value)
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        told = error.errors()[0]
        where = ".".join(str(part) for part in told["loc"]) or ", ".join(drawn)
        raise UsageError(f"sweep.search: train.{where}: {told['msg']} (drawn: {dict(drawn)}).") from None


def _dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of all settings that hold a value."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _nothing(ranker: Any, out: Path) -> None:
    """A trial leaves no bundle."""

"""One trial of a sweep: the training loop as a plain function, no Ray Train around it.

A worker group for each trial would cost more than a small trial itself; the final fit is `prectr train`'s.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prectr.configuration import assign_path
from prectr.training.config import TrainConfig
from prectr.training.sweep_config import SearchRange


def run_trial(
    drawn: Mapping[str, Any], *, train: dict[str, Any], samples: str, encoder: str, build_ranker: Callable[..., Any]
) -> None:
    """Train one drawn configuration and report every validation to Ray Tune.

    Args:
        drawn: setting of `train` (dotted) -> value.
        train: the TrainConfig they are put into, as JSON.
        samples: artifact of `build-samples`.
        encoder: artifact of `distill`.
        build_ranker: as the loop's.
    """
    import torch
    from ray import tune

    from prectr.training.ranker_loop import Run
    from prectr.training.workers import Workers

    config = drawn_config(train, drawn)
    torch.set_num_threads(config.cpus)

    def report(point: dict[str, Any]) -> bool:
        tune.report({name: _finite(value) for name, value in point.items()})
        return True

    with tempfile.TemporaryDirectory() as out:
        loop = {
            "config": config.model_dump(mode="json"),
            "samples": samples,
            "encoder": encoder,
            "out": out,
            "build_ranker": build_ranker,
            "finish": _nothing,
            "report": report,
        }
        Run(loop, Workers()).run()


def drawn_config(train: Mapping[str, Any], drawn: Mapping[str, Any]) -> TrainConfig:
    """The configuration of a trial; execution settings that a trial cannot use are put back.

    Raises:
        ValidationError: a drawn setting does not exist or has a value of the wrong type.
    """
    values: dict[str, Any] = {**TrainConfig.model_validate(train).model_dump(mode="json"), "workers": 1}
    for name, value in drawn.items():
        assign_path(values, name.split("."), value)
    return TrainConfig.model_validate(values)


def search_space(search: Mapping[str, SearchRange]) -> dict[str, Any]:
    """Ray Tune's form of a declared search space."""
    return {name: _domain(space) for name, space in search.items()}


def _domain(space: SearchRange) -> Any:
    from ray import tune

    if space.choices is not None:
        return tune.choice(list(space.choices))
    assert space.low is not None and space.high is not None
    if space.integer:
        draw = tune.lograndint if space.log else tune.randint
        return draw(int(space.low), int(space.high) + 1)
    return tune.loguniform(space.low, space.high) if space.log else tune.uniform(space.low, space.high)


def _finite(value: Any) -> Any:
    """GAUC is NaN where no user of the validation day has both clicks and skips; Optuna takes numbers only."""
    return float(np.nan_to_num(value, nan=0.0)) if isinstance(value, float) else value


def _nothing(ranker: Any, out: Path) -> None:
    """A trial leaves no bundle."""

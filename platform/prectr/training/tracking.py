"""Where a run's figures go: a JSONL file always, TensorBoard and MLflow where the settings name them.

A tracker takes points; adding one is a class with two methods and a line in `open_trackers`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from prectr.core.errors import UsageError
from prectr.core.ray_train import append_curve
from prectr.training.config import TrackingConfig


class Tracker(Protocol):
    """Takes the figures of a run as it goes."""

    def point(self, step: int, figures: Mapping[str, Any]) -> None:
        """Figures after `step` steps; names to numbers, anything else is left out."""

    def close(self) -> None:
        """The run is over."""


class Jsonl:
    """The learning curve that the project's own pages read: one line a point."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def point(self, step: int, figures: Mapping[str, Any]) -> None:
        """Append a line."""
        append_curve(self._file, {"step": step, **figures})

    def close(self) -> None:
        """Nothing is open."""


class TensorBoard:
    """Event files for `tensorboard --logdir`."""

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def point(self, step: int, figures: Mapping[str, Any]) -> None:
        """One scalar a figure."""
        for name, value in _numbers(figures).items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the event file."""
        self._writer.close()


class MLflow:
    """A run of an MLflow experiment; the optional extra `mlflow`.

    Raises:
        UsageError: MLflow is not installed.
    """

    def __init__(self, settings: TrackingConfig, name: str, parameters: Mapping[str, Any]) -> None:
        try:
            from mlflow.tracking import MlflowClient
        except ImportError:
            raise UsageError(
                "train.tracking.mlflow is set, but MLflow is not installed; "
                "run `pip install prectr[mlflow]` or unset it."
            ) from None
        self._client = MlflowClient(tracking_uri=settings.mlflow)
        found = self._client.get_experiment_by_name(settings.experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(settings.experiment)
        self._run = self._client.create_run(experiment, run_name=name).info.run_id
        for key, value in parameters.items():
            self._client.log_param(self._run, key, value)

    def point(self, step: int, figures: Mapping[str, Any]) -> None:
        """One metric a figure."""
        for name, value in _numbers(figures).items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._run)


class Trackers:
    """Several trackers as one."""

    def __init__(self, trackers: list[Tracker]) -> None:
        self._trackers = trackers

    def point(self, step: int, figures: Mapping[str, Any]) -> None:
        """To all of them."""
        for tracker in self._trackers:
            tracker.point(step, figures)

    def close(self) -> None:
        """All of them."""
        for tracker in self._trackers:
            tracker.close()


def open_trackers(settings: TrackingConfig, curve: Path, name: str, parameters: Mapping[str, Any]) -> Trackers:
    """The trackers that `settings` name.

    Args:
        settings: of `train`.
        curve: the JSONL file.
        name: of the run.
        parameters: its configuration, flat.
    """
    trackers: list[Tracker] = [Jsonl(curve)]
    if settings.tensorboard is not None:
        trackers.append(TensorBoard(settings.tensorboard / f"{name}-{os.getpid()}"))
    if settings.mlflow is not None:
        trackers.append(MLflow(settings, name, parameters))
    return Trackers(trackers)


def _numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}

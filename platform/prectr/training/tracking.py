"""Trackers of a run's metrics: always a JSONL file; TensorBoard and MLflow if the settings name them.

To add a tracker, write a class with the two methods of `Tracker` and add it in `open_trackers`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from prectr.core.errors import UsageError
from prectr.core.ray_train import append_curve
from prectr.training.config import TrackingConfig


class Tracker(Protocol):
    """Receives the metrics of a run."""

    def point(self, step: int, figures: Mapping[str, Any]) -> None:
        """Record metrics after `step` steps: name -> number; other values may be left out."""

    def close(self) -> None:
        """End the run."""


class Jsonl:
    """Learning curve as JSON lines, one per point, which the report pages read."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def point(self, step: int, figures: Mapping[str, Any]) -> None:
        """Append a line."""
        append_curve(self._file, {"step": step, **figures})

    def close(self) -> None:
        """Do nothing: each point opens and closes the file."""


class TensorBoard:
    """Event files for `tensorboard --logdir`."""

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def point(self, step: int, figures: Mapping[str, Any]) -> None:
        """Write one scalar per metric."""
        for name, value in _numbers(figures).items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the event file."""
        self._writer.close()


class MLflow:
    """A run of an MLflow experiment; needs the optional extra `mlflow`.

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
        experiment = self._client.get_experiment_by_name(settings.experiment)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(settings.experiment)
        self._run = self._client.create_run(experiment_id, run_name=name).info.run_id
        for key, value in parameters.items():
            self._client.log_param(self._run, key, value)

    def point(self, step: int, figures: Mapping[str, Any]) -> None:
        """Log one MLflow metric per metric."""
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
        """Record metrics with all trackers."""
        for tracker in self._trackers:
            tracker.point(step, figures)

    def close(self) -> None:
        """Close all trackers."""
        for tracker in self._trackers:
            tracker.close()


def open_trackers(settings: TrackingConfig, curve: Path, name: str, parameters: Mapping[str, Any]) -> Trackers:
    """Open the JSONL tracker and those that `settings` name.

    Args:
        settings: the section `train.tracking`.
        curve: JSONL file of the learning curve.
        name: name of the run.
        parameters: configuration of the run as name -> value.
    """
    trackers: list[Tracker] = [Jsonl(curve)]
    if settings.tensorboard is not None:
        trackers.append(TensorBoard(settings.tensorboard / f"{name}-{os.getpid()}"))
    if settings.mlflow is not None:
        trackers.append(MLflow(settings, name, parameters))
    return Trackers(trackers)


def _numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}

"""Callback of Ray Tune during a sweep: writes each finished trial to the ledger and prints a line about it."""

import re
from pathlib import Path
from typing import Any

from ray.exceptions import RayActorError
from ray.tune import Callback

from prectr.core import progress
from prectr.training.sweep_config import SweepConfig
from prectr.training.sweep_trials import FAILED, ITERATION, POINT, Trial, TrialLedger


class SweepProgress(Callback):
    """Collects the points of each trial.

    Args:
        ledger: receives the finished trials.
        sweep: settings of the sweep.
        finished: number of trials that earlier drivers finished.

    Attributes:
        failed: trials that failed.
    """

    def __init__(self, ledger: TrialLedger, sweep: SweepConfig, finished: int) -> None:
        self.failed: list[Trial] = []
        self._errors: list[tuple[Any, Trial]] = []
        """Tune's trials that ended with an error, and their entries in `failed`."""
        self._ledger, self._sweep, self._finished = ledger, sweep, finished
        self._points: dict[str, list[dict[str, Any]]] = {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record a validation. A trial that restarts on another machine replaces its earlier points."""
        if POINT in result:
            earlier = self._points.get(trial.trial_id, [])[: result[ITERATION] - 1]
            self._points[trial.trial_id] = [*earlier, result[POINT]]

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a trial that ended, was stopped early, or reported a failure."""
        if error := (trial.last_result or {}).get(FAILED):
            self._record_failure(trial, error)
            return
        finished = self._take_trial(trial, None)
        self._ledger.write(finished)
        self._finished += 1
        progress.say(
            f"  sweep: {self._finished} of {self._sweep.trials} trials, the last reached {self._sweep.metric} "
            f"{finished.best:.5g} in {len(finished.points)} validations"
        )

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a trial that raised an error, or lost its worker too often."""
        error = Path(trial.error_file).read_text(encoding="utf-8").strip().splitlines()[-1]
        self._record_failure(trial, re.sub(r"^prectr\.core\.errors\.\w+: ", "", error))
        self._errors.append((trial, self.failed[-1]))

    def take_lost(self) -> list[dict[str, Any]]:
        """Remove trials that lost their workers from `failed` and return their proposals.

        Call it after Tune has ended: only then can it read the errors of its trials.
        """
        errors, self._errors = self._errors, []
        lost = [(trial, entry) for trial, entry in errors if isinstance(trial.get_pickled_error(), RayActorError)]
        self.failed = [failed for failed in self.failed if all(failed is not entry for _, entry in lost)]
        return [dict(trial.config) for trial, _ in lost]

    def _record_failure(self, trial: Any, error: str) -> None:
        self.failed.append(self._take_trial(trial, error))
        progress.say(f"  sweep: a trial failed: {self.failed[-1].error}")

    def _take_trial(self, trial: Any, error: str | None) -> Trial:
        """The ledger's entry of a trial of Tune; its points are removed from memory."""
        seconds = (trial.last_result or {}).get("time_total_s")
        return Trial(self._sweep.settings(trial.config), self._points.pop(trial.trial_id, []), seconds, error)

"""What Ray Tune calls while a sweep runs: every trial that ends goes into the ledger and is said in a line."""

import re
from pathlib import Path
from typing import Any

from ray.exceptions import RayActorError
from ray.tune import Callback

from prectr.core import progress
from prectr.training.sweep_config import SweepConfig
from prectr.training.sweep_ledger import Trial, TrialLedger
from prectr.training.sweep_trials import FAILED, ITERATION, POINT


class SweepProgress(Callback):
    """Collects the points of each trial.

    Args:
        ledger: receives the trials that end.
        sweep: what is searched.
        done: trials that ended before this driver.
    """

    def __init__(self, ledger: TrialLedger, sweep: SweepConfig, done: int) -> None:
        self.failed: list[Trial] = []
        self._broken: list[tuple[Any, Trial]] = []
        self._ledger, self._sweep, self._done = ledger, sweep, done
        self._points: dict[str, list[dict[str, Any]]] = {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial validated; one that was lost with its machine begins anew."""
        if POINT in result:
            before = self._points.get(trial.trial_id, [])[: result[ITERATION] - 1]
            self._points[trial.trial_id] = [*before, result[POINT]]

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial came to its end, was stopped early, or could not go on."""
        if told := (trial.last_result or {}).get(FAILED):
            self._note_failure(trial, told)
            return
        ended = self._ended(trial, None)
        self._ledger.write(ended)
        self._done += 1
        progress.say(
            f"  sweep: {self._done} of {self._sweep.trials} trials, the last reached {self._sweep.metric} "
            f"{ended.best:.5g} in {len(ended.points)} validations"
        )

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial broke down, or was lost too often."""
        told = Path(trial.error_file).read_text(encoding="utf-8").strip().splitlines()[-1]
        self._note_failure(trial, re.sub(r"^prectr\.errors\.\w+: ", "", told))
        self._broken.append((trial, self.failed[-1]))

    def take_lost(self) -> list[dict[str, Any]]:
        """What was proposed to trials that were lost with their workers, which no longer count as failed.

        Asked after Tune has ended: only then has it brought the errors to where it reads them.
        """
        broken, self._broken = self._broken, []
        lost = [(trial, failed) for trial, failed in broken if isinstance(trial.get_pickled_error(), RayActorError)]
        self.failed = [one for one in self.failed if all(one is not failed for _, failed in lost)]
        return [dict(trial.config) for trial, _ in lost]

    def _note_failure(self, trial: Any, error: str) -> None:
        self.failed.append(self._ended(trial, error))
        progress.say(f"  sweep: a trial failed: {self.failed[-1].error}")

    def _ended(self, trial: Any, error: str | None) -> Trial:
        seconds = (trial.last_result or {}).get("time_total_s")
        return Trial(self._sweep.settings(trial.config), self._points.pop(trial.trial_id, []), seconds, error)

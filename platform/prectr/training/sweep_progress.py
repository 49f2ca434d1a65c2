"""What Ray Tune calls while a sweep runs: every trial that ends goes into the ledger and is said in a line."""

import re
from pathlib import Path
from typing import Any

from ray.tune import Callback

from prectr import progress
from prectr.training.sweep_config import SweepConfig
from prectr.training.sweep_ledger import Trial, TrialLedger
from prectr.training.sweep_trials import POINT


class SweepProgress(Callback):
    """Collects the points of each trial.

    Args:
        ledger: receives the trials that end.
        sweep: what is searched.
        done: trials that ended before this driver.
    """

    def __init__(self, ledger: TrialLedger, sweep: SweepConfig, done: int) -> None:
        self.failed: list[Trial] = []
        self._ledger, self._sweep, self._done = ledger, sweep, done
        self._points: dict[str, list[dict[str, Any]]] = {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial validated."""
        self._points.setdefault(trial.trial_id, []).append(result[POINT])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial came to its end or was stopped early."""
        ended = self._ended(trial, None)
        self._ledger.write(ended)
        self._done += 1
        progress.say(
            f"  sweep: {self._done} of {self._sweep.trials} trials, the last reached {self._sweep.metric} "
            f"{ended.best:.5g} in {len(ended.points)} validations"
        )

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed."""
        told = Path(trial.error_file).read_text(encoding="utf-8").strip().splitlines()[-1]
        self.failed.append(self._ended(trial, re.sub(r"^prectr\.errors\.\w+: ", "", told)))
        progress.say(f"  sweep: a trial failed: {self.failed[-1].error}")

    def _ended(self, trial: Any, error: str | None) -> Trial:
        seconds = (trial.last_result or {}).get("time_total_s")
        return Trial(self._sweep.settings(trial.config), self._points.pop(trial.trial_id, []), seconds, error)

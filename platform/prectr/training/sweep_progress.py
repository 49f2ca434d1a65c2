"""What a sweep says while it runs: a line for each trial that ends."""

from typing import Any

from ray.tune import Callback

from prectr import progress


class SweepProgress(Callback):
    """Says how each trial did; kept with the sweep, so a resumed one goes on saying it."""

    def __init__(self, metric: str, trials: int) -> None:
        self._metric, self._trials, self._done = metric, trials, 0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial came to its end or was stopped early."""
        self._done = sum(one.is_finished() for one in trials)
        value = (trial.last_result or {}).get(self._metric)
        reached = "nothing" if value is None else f"{self._metric} {value:.5g}"
        progress.say(f"  sweep: {self._done} of {self._trials} trials, the last reached {reached}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed."""
        progress.say(f"  sweep: a trial failed: {trial.get_error() or 'see -v'}")

"""What each worker of Ray Train runs: measure the weight of exposure debias where it is left to the log, then train."""

from typing import Any

from prectr.training.debias_weight import with_measured_weight
from prectr.training.ranker_loop import Run
from prectr.training.workers import RayWorkers


def train_ranker(loop: dict[str, Any]) -> dict[str, Any]:
    """Train one ranker; Ray Train calls it in each worker.

    Args:
        loop: as of `ranker_loop.Run`.

    Returns:
        The facts of the run, and `debias`: those of the measured weight, None if it was given.
    """
    workers = RayWorkers()
    loop, debias = with_measured_weight(loop, workers)
    return {**Run(loop, workers).run(), "debias": debias}

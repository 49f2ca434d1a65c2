"""The built-in marketplace taken through the jobs, for benchmarks of speed: weights may be anything and are quick."""

from pathlib import Path

from _quality_world import World, make_world

QUICK_WEIGHTS = (
    "teacher.warm_start_pairs=500",
    "teacher.epochs=1",
    "selection.budget=300",
    "label.repeat_sample=20",
    "label.engine=transformers",
    "distill.epochs=1",
)


def quick_world(folder: Path, requests: int) -> World:
    """The `small` marketplace with so many requests, with samples and an encoder; made once a folder."""
    return make_world(folder / f"quick-{requests}", [f"simulate.requests={requests}", *QUICK_WEIGHTS])

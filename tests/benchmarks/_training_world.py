"""The built-in marketplace taken through the jobs, for benchmarks of speed: weights may be anything and are quick."""

from collections.abc import Sequence
from pathlib import Path

from _quality_world import World, make_world
from _smallest import SETTINGS

QUICK_WEIGHTS = (
    "teacher.warm_start_pairs=500",
    "teacher.epochs=1",
    "selection.budget=300",
    "label.repeat_sample=20",
    "label.engine=transformers",
    "distill.epochs=1",
)


def quick_world(
    folder: Path, requests: int, name: str = "quick", settings: Sequence[str] = (), smallest: bool = False
) -> World:
    """The `small` marketplace with so many requests, with samples and an encoder; made once a folder.

    Args:
        folder: worlds lie in it.
        requests: of the log.
        name: of the world, with the number of requests.
        settings: more settings, as `section.key=value`.
        smallest: instead, the smallest world, which all benchmarks share.
    """
    if smallest:
        return make_world(folder / "smallest" / "log", SETTINGS)
    return make_world(folder / f"{name}-{requests}", [f"simulate.requests={requests}", *settings, *QUICK_WEIGHTS])

"""What each stage of a workspace took, read off the manifests."""

from dataclasses import dataclass
from pathlib import Path

from prectr.core import mirror
from prectr.core.artifacts import read_manifest
from prectr.evaluation.contestants import label_of

STAGES = ("tables", "teacher", "labels-selection", "labels", "encoder", "relevance", "preferences", "samples")
SEED_MARK = ".seed-"
"""Between a ranker's name and its seed, in the names of bundles that were trained with further seeds."""


@dataclass(frozen=True)
class StageTime:
    """One stage, or all trainings of one ranker.

    Attributes:
        name: for people.
        runs: how many artifacts it is.
        seconds: wall time of all of them.
        core_hours: wall hours times the cores of the machine; None where a manifest does not say.
    """

    name: str
    runs: int
    seconds: float
    core_hours: float | None


def stage_times(workspace: Path) -> list[StageTime]:
    """The stages that are there, in the pipeline's order, then the rankers."""
    found = []
    for name in STAGES:
        if (manifest := read_manifest(workspace / name)) is not None:
            found.append((str(manifest["stage"]), manifest))
    for path in bundle_paths(workspace):
        found.append((f"train {label_of(path.name.partition(SEED_MARK)[0])}", read_manifest(path) or {}))
    times: dict[str, StageTime] = {}
    for name, manifest in found:
        seconds, cores = float(manifest["wall_seconds"]), manifest.get("cores")
        hours = None if cores is None else seconds / 3600 * cores
        known = times.get(name, StageTime(name, 0, 0.0, 0.0))
        both = None if known.core_hours is None or hours is None else known.core_hours + hours
        times[name] = StageTime(name, known.runs + 1, known.seconds + seconds, both)
    return list(times.values())


def bundle_paths(workspace: Path) -> list[Path]:
    """The bundles of a workspace, by name."""
    return [path for path in mirror.folders(workspace / "rankers") if read_manifest(path) is not None]

"""Wall times of the stages of a workspace, from its manifests."""

from dataclasses import dataclass
from pathlib import Path

from prectr.core import mirror
from prectr.core.artifacts import read_manifest
from prectr.evaluation.contestants import label_of

STAGES = ("tables", "teacher", "labels-selection", "labels", "encoder", "relevance", "preferences", "samples")
SEED_MARK = ".seed-"
"""Separates the ranker's name and the seed in the names of bundles of further seeds."""


@dataclass(frozen=True)
class StageTime:
    """One stage, or all trainings of one ranker.

    Attributes:
        name: name in tables.
        runs: number of artifacts.
        seconds: wall time of all artifacts.
        core_hours: wall hours times the cores of the machine; None if a manifest does not record the cores.
    """

    name: str
    runs: int
    seconds: float
    core_hours: float | None


def stage_times(workspace: Path) -> list[StageTime]:
    """Wall times of the stages of a workspace in the order of the pipeline, then of the rankers."""
    manifests = []
    for name in STAGES:
        if (manifest := read_manifest(workspace / name)) is not None:
            manifests.append((str(manifest["stage"]), manifest))
    for path in bundle_paths(workspace):
        manifests.append((f"train {label_of(path.name.partition(SEED_MARK)[0])}", read_manifest(path) or {}))
    times: dict[str, StageTime] = {}
    for name, manifest in manifests:
        seconds, cores = float(manifest["wall_seconds"]), manifest.get("cores")
        hours = None if cores is None else seconds / 3600 * cores
        earlier = times.get(name, StageTime(name, 0, 0.0, 0.0))
        total_hours = None if earlier.core_hours is None or hours is None else earlier.core_hours + hours
        times[name] = StageTime(name, earlier.runs + 1, earlier.seconds + seconds, total_hours)
    return list(times.values())


def bundle_paths(workspace: Path) -> list[Path]:
    """Directories of the bundles of a workspace, in order of their names."""
    return [path for path in mirror.folders(workspace / "rankers") if read_manifest(path) is not None]

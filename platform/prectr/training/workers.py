"""Workers of a training run: one without Ray, or several under Ray Train, behind one interface for the loop."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class Workers:
    """A single worker without Ray.

    Args:
        checkpoints: folder of checkpoints; None: no checkpoints.
        kept: number of newest checkpoints to keep.

    Attributes:
        rank: number of this worker, from 0.
        world: number of workers.
    """

    rank = 0
    world = 1

    def __init__(self, checkpoints: Path | None = None, kept: int = 2) -> None:
        self._checkpoints, self._kept = checkpoints, kept

    def save(self, write: Callable[[Path], None], step: int) -> None:
        """Keep the checkpoint of a step atomically; `write` writes it into the folder that it gets."""
        if self._checkpoints is None:
            return
        staging = self._checkpoints / f".step-{step:09d}"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        write(staging)
        target = self._checkpoints / f"step-{step:09d}"
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)
        for old in self._folders()[self._kept :]:
            shutil.rmtree(old, ignore_errors=True)

    def saved(self) -> Iterator[Path]:
        """Folders of the checkpoints, newest first."""
        yield from self._folders()

    def _folders(self) -> list[Path]:
        return [] if self._checkpoints is None else sorted(self._checkpoints.glob("step-*"), reverse=True)

    def mean(self, values: list[float]) -> float:
        """Mean of the values of all workers; every worker must call it."""
        return sum(values) / max(len(values), 1)

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` returns on the first worker; every worker must call it."""
        return make()

    def wait(self) -> None:
        """Wait until all workers have called this."""


class RayWorkers(Workers):
    """A worker of Ray Train, which stores the checkpoints and restores them when a run resumes."""

    def __init__(self) -> None:
        import ray.train

        super().__init__()
        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()

    def save(self, write: Callable[[Path], None], step: int) -> None:
        """Report the checkpoint of rank 0; every worker must call it in the same step."""
        import ray.train

        if self.rank:
            ray.train.report({"step": step})
            return
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            ray.train.report({"step": step}, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def saved(self) -> Iterator[Path]:
        """Folders with local copies of this run's checkpoints, newest first."""
        import ray.train

        latest = ray.train.get_checkpoint()
        if latest is None:
            return
        yield Path(latest.to_directory())
        for reported in reversed(ray.train.get_all_reported_checkpoints()):
            if reported.checkpoint.path != latest.path:
                yield Path(reported.checkpoint.to_directory())

    def mean(self, values: list[float]) -> float:
        """Mean of the values of all workers; every worker must call it."""
        import torch

        totals = torch.tensor([sum(values), float(len(values))], dtype=torch.float64)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(totals)
        return float(totals[0] / totals[1].clamp(min=1))

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` returns on the first worker; every worker must call it."""
        import torch.distributed

        if not torch.distributed.is_initialized():
            return make()
        made = [None if self.rank else make()]
        torch.distributed.broadcast_object_list(made)
        return made[0]  # type: ignore[return-value]

    def wait(self) -> None:
        """Wait until all workers have called this."""
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.barrier()

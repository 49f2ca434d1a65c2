"""The worker's place among the others: alone, or one of several under Ray Train. A loop is written against this."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


class Workers:
    """One worker alone, without Ray; checkpoints, if any, lie in a folder of its own.

    Args:
        checkpoints: folder of checkpoints; None keeps none.
        kept: how many checkpoints are kept.
    """

    rank = 0
    world = 1

    def __init__(self, checkpoints: Path | None = None, kept: int = 2) -> None:
        self._checkpoints, self._kept = checkpoints, kept

    def save(self, write: Callable[[Path], None], step: int) -> None:
        """Keep a checkpoint that `write` leaves in the folder it is given; it is there whole or not at all."""
        if self._checkpoints is None:
            return
        aside = self._checkpoints / f".step-{step:09d}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        write(aside)
        target = self._checkpoints / f"step-{step:09d}"
        shutil.rmtree(target, ignore_errors=True)
        aside.rename(target)
        for old in self._folders()[self._kept :]:
            shutil.rmtree(old, ignore_errors=True)

    def saved(self) -> Iterator[Path]:
        """Folders of the checkpoints, newest first."""
        yield from self._folders()

    def _folders(self) -> list[Path]:
        return [] if self._checkpoints is None else sorted(self._checkpoints.glob("step-*"), reverse=True)

    def mean(self, values: list[float]) -> float:
        """The mean over all workers' values; all must come here."""
        return sum(values) / max(len(values), 1)

    def wait(self) -> None:
        """Until all workers are here."""


class RayWorkers(Workers):
    """A worker of Ray Train, which keeps the checkpoints in the run's storage and hands them to whoever resumes."""

    def __init__(self) -> None:
        import ray.train

        super().__init__()
        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()

    def save(self, write: Callable[[Path], None], step: int) -> None:
        """Report a checkpoint of rank 0; all workers must come here in the same step."""
        import ray.train

        if self.rank:
            ray.train.report({"step": step})
            return
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            ray.train.report({"step": step}, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def saved(self) -> Iterator[Path]:
        """Local copies of the checkpoints of this run, newest first."""
        import ray.train

        latest = ray.train.get_checkpoint()
        if latest is None:
            return
        yield Path(latest.to_directory())
        for reported in reversed(ray.train.get_all_reported_checkpoints()):
            if reported.checkpoint.path != latest.path:
                yield Path(reported.checkpoint.to_directory())

    def mean(self, values: list[float]) -> float:
        """The mean over all workers' values; all must come here."""
        import torch

        totals = torch.tensor([sum(values), float(len(values))], dtype=torch.float64)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(totals)
        return float(totals[0] / totals[1].clamp(min=1))

    def wait(self) -> None:
        """Until all workers are here."""
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.barrier()

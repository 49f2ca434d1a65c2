"""The training loop of every ranker, as one worker runs it. Read it top to bottom.

Batches are slices of arrays. Each distinct (query, title) of a batch is encoded once, in batches of similar length. The
loop scores the validation day several times per epoch and keeps the best state by `is_better`. A killed run resumes
from its last checkpoint; on one worker the result equals that of an uninterrupted run to the bit, which is promised for
one machine, build and thread count only. The loop knows no model: its caller passes a function that builds one
(`prectr.contracts.types` is the contract). It writes a directory of files.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prectr.core.dealing import shuffled
from prectr.core.errors import PrectrError
from prectr.core.ray_train import append_curve
from prectr.features.load import Samples, split_days
from prectr.metrics import auc, log_loss
from prectr.metrics.roc import AucInGroups
from prectr.training.checkpoint import Progress, newest_whole, write_checkpoint
from prectr.training.config import TrainConfig
from prectr.training.data import RankerData
from prectr.training.optimiser import RankerOptimiser
from prectr.training.shards import ShardPlan, batches, part_of
from prectr.training.start import load_weights, unseen_days
from prectr.training.step import TrainingStep
from prectr.training.tracking import open_trackers
from prectr.training.workers import Workers

CURVE = "learning_curve.jsonl"
STATE = "model.safetensors"
BEST_USERS = "best-users"
"""Part of a checkpoint: the AUC of each user of the validation day in the best state."""


class Run:
    """One training run in one worker.

    Args:
        loop: `config` (TrainConfig as JSON); `samples` and `encoder` (paths); `out` (directory for the best state and
            the learning curve); `build_ranker(model_config, spec, encoder_path) -> nn.Module`; `finish(ranker, out)`,
            called once at the end with the best state loaded; and optionally `report(point)`, called with every point
            of the learning curve: False ends the run early.
        workers: rank, number of workers, and checkpoints.

    Raises:
        PrectrError: a feature or the loss is NaN or infinite.
    """

    def __init__(self, loop: dict[str, Any], workers: Workers) -> None:
        self.config = TrainConfig.model_validate(loop["config"])
        self.out = Path(loop["out"])
        self.workers = workers
        self._finish: Callable[[nn.Module, Path], None] = loop["finish"]
        self._report: Callable[[dict[str, Any]], bool] = loop.get("report", lambda _: True)

        torch.manual_seed(self.config.seed)
        samples = self.open(Path(loop["samples"]))
        training_days, validation_day, _ = split_days(samples.days())
        if self.config.start_from is not None:
            training_days = unseen_days(self.config.start_from, training_days)
        device = torch.device("cuda" if self.config.gpus and torch.cuda.is_available() else "cpu")
        self.ranker = loop["build_ranker"](self.config.model, samples.spec, Path(loop["encoder"])).to(device)
        if self.config.start_from is not None:
            load_weights(self.ranker, self.config.start_from)
        self.step = TrainingStep(self.ranker, samples, self.config)
        self.trained: nn.Module = self.step
        if workers.world > 1:
            self.trained = nn.parallel.DistributedDataParallel(self.step, find_unused_parameters=True)

        # Only a ranker that encodes text in each step gains by rows of a pair in one batch.
        self.pair_rows = self.config.pair_rows if self.ranker.uses_text and self.ranker.trains_encoder else 1
        files = self.training_files(samples.files(training_days))
        self.plan = ShardPlan.of(files, self.config.rows_in_memory)
        self.steps = self.plan.steps(self.config.seed, self.config.epochs, self.config.batch_size)
        self.evaluate_at = evaluation_steps(self.steps, self.config.evaluations_per_epoch)
        groups = self.ranker.parameter_groups(self.config.learning_rate, self.config.encoder_scale)
        self.optimiser = RankerOptimiser(groups, self.config, sum(self.steps))
        self.samples = samples
        self._validation_files = samples.files([validation_day])
        self.progress = Progress(self.config.seed)
        self.unreadable_checkpoints: list[str] = []
        self._best: dict[str, Tensor] = {}
        self._best_auc = np.zeros(0)
        """AUC of each user of the validation day in the best state."""
        self._shard: tuple[tuple[Path, ...], RankerData] | None = None

    def run(self) -> dict[str, Any]:
        """Train to the end.

        Returns:
            Facts of the run: rows, steps and the best validation metrics; and of this worker since its last start: the
            seconds spent in steps, the rows of those steps, and the problems of checkpoints that could not be read.
        """
        self._resume()
        trackers = open_trackers(
            self.config.tracking, self.out / CURVE, self.config.model.name, {"seed": self.config.seed}
        )
        seconds, rows = 0.0, 0
        for index in self._batches():
            started = time.perf_counter()
            loss = self._step(part_of(index, self.workers.rank, self.workers.world))
            seconds += time.perf_counter() - started
            rows += len(index)
            self.progress.step += 1
            self.progress.row += len(index)
            self.progress.recent.append(loss)
            if self.progress.step in self.evaluate_at and not self._evaluate(trackers):
                break
            if self.progress.step % self.config.checkpoint_steps == 0:
                self.workers.save(self._write_checkpoint, self.progress.step)
        trackers.close()
        if self.workers.rank == 0:
            self.ranker.load_state_dict(self._best)
            _save_state(self._best, self.out / STATE)
            self._finish(self.ranker, self.out)
        self.workers.wait()
        return {
            "rows": self.plan.total,
            "steps": self.progress.step,
            "best": self.progress.best,
            "step_seconds": round(seconds, 3),
            "step_rows": rows,
            "passed_over": self.unreadable_checkpoints,
        }

    def open(self, path: Path) -> Samples:
        """Open the samples."""
        return Samples.open(path)

    def training_files(self, files: Sequence[Path]) -> Sequence[Path]:
        """Files to train on, of those of the training days."""
        return files

    def load(self, files: Sequence[Path]) -> RankerData:
        """Read the rows of sample files into memory."""
        return RankerData(self.samples, files)

    @cached_property
    def validation(self) -> RankerData:
        """Rows of the validation day."""
        return self.load(self._validation_files)

    @property
    def _data(self) -> RankerData:
        """Rows of the current shard."""
        assert self._shard is not None
        return self._shard[1]

    def _batches(self) -> Iterator[np.ndarray]:
        """Remaining batches of the run as row numbers of the current shard; loads the shards in turn."""
        progress = self.progress
        for epoch in range(progress.epoch, self.config.epochs):
            for shard in self.plan.epoch(self.config.seed, epoch)[progress.shard :]:
                if self._shard is None or self._shard[0] != shard.files:
                    self._shard = None  # frees the memory of the last shard before the next one is read
                    self._shard = shard.files, self.load(shard.files)
                generator = np.random.default_rng([self.config.seed, epoch, shard.number])
                order = shuffled(self._data.rows.pair, self.pair_rows, generator)
                yield from batches(order, self.config.batch_size, progress.row)
                progress.shard, progress.row = shard.number + 1, 0
            progress.epoch, progress.shard = epoch + 1, 0

    def _step(self, index: np.ndarray) -> float:
        """Update the ranker on one batch and return the loss.

        Raises:
            PrectrError: the loss is NaN or infinite.
        """
        step = self.progress.step
        torch.manual_seed(hash((self.config.seed, self.workers.rank, step)))
        self.trained.train()
        losses = self.trained(*self._data.batch(index, self.ranker.reads_behaviours))
        total = float(losses["total"].detach())
        if not np.isfinite(total):
            raise PrectrError(self._explain(losses, index))
        self.optimiser.step(losses["total"], step)
        return total

    def _explain(self, losses: dict[str, Tensor], index: np.ndarray) -> str:
        """Message for a loss that is not finite: its terms, and the first row with a score that is not finite."""
        broken = [name for name, value in losses.items() if name != "total" and not torch.isfinite(value)]
        with torch.no_grad():
            inputs, _, pair = self._data.batch(index, self.ranker.reads_behaviours)
            finite = torch.isfinite(self.step.predict(inputs, pair).click_logit).cpu().numpy()
        row = int(index[0]) if finite.all() else int(index[np.flatnonzero(~finite)[0]])
        position = "the first row of the batch is" if finite.all() else "the first row with such a score is"
        return (
            f"the loss became {float(losses['total'].detach())} at step {self.progress.step} "
            f"({', '.join(broken) or 'total'}); {position} {self._data.name_of(row)}; lower train.learning_rate."
        )

    def _evaluate(self, trackers: Any) -> bool:
        """Score the validation day and record a point of the learning curve; False ends the run."""
        progress = self.progress
        loss = self.workers.mean(progress.recent)
        progress.recent = []
        if self.workers.rank:
            return True
        figures, by_user = validate(self.step, self.validation)
        point = {"epoch": progress.epoch + 1, "step": progress.step, "loss": loss, **figures}
        progress.curve.append(point)
        trackers.point(progress.step, point)
        if not progress.best or is_better(figures, by_user, progress.best, self._best_auc):
            progress.best, self._best_auc = point, by_user.value
            self._best = {name: value.detach().cpu().clone() for name, value in self.ranker.state_dict().items()}
        return self._report(point)

    def _write_checkpoint(self, folder: Path) -> None:
        parts = {"model": self.ranker.state_dict(), "optimiser": self.optimiser.tensors()}
        if self._best:
            parts["best"] = self._best
            parts[BEST_USERS] = {"auc": torch.from_numpy(self._best_auc)}
        write_checkpoint(folder, self.progress, parts)

    def _resume(self) -> None:
        """Restore the newest intact checkpoint of this run, if there is one."""
        checkpoint = newest_whole(self.workers.saved(), self.unreadable_checkpoints)
        (self.out / CURVE).unlink(missing_ok=True)
        if checkpoint is None:
            return
        self.progress, parts = checkpoint
        self.ranker.load_state_dict(parts["model"])
        self.optimiser.load_tensors(parts["optimiser"])
        self._best = parts.get("best", {})
        if self._best:
            self._best_auc = parts[BEST_USERS]["auc"].numpy()
        if self.workers.rank == 0:
            for point in self.progress.curve:
                append_curve(self.out / CURVE, point)


@torch.no_grad()
def predict(step: TrainingStep, data: RankerData, batch_size: int = 8192) -> tuple[np.ndarray, np.ndarray]:
    """Click logits of all rows, position-free and at the logged position; each [n]."""
    step.eval()
    free, logged = [], []
    # Rows are sorted by pair, so that a pair's text is encoded in one or two batches only.
    order = np.argsort(data.rows.pair, kind="stable")
    for index in batches(order, batch_size):
        inputs, labels, pair = data.batch(index, step.ranker.reads_behaviours)
        output = step.predict(inputs, pair)
        free.append(output.click_logit.cpu().numpy())
        position = labels.position.to(output.click_logit.device)
        logged.append(step.ranker.with_position(output.click_logit, position).cpu().numpy())
    inverse = np.argsort(order, kind="stable")
    return np.concatenate(free)[inverse], np.concatenate(logged)[inverse]


def validate(step: TrainingStep, data: RankerData) -> tuple[dict[str, float], AucInGroups]:
    """Metrics on the validation day, at the logged positions, and the position-free AUC; and the AUC of each user.

    Raises:
        PrectrError: a score is NaN or infinite.
    """
    free, logged = predict(step, data)
    broken = np.flatnonzero(~np.isfinite(free))
    if len(broken):
        raise PrectrError(
            f"{len(broken)} of {len(data)} scores of the validation day are NaN or infinite; the first is of "
            f"{data.name_of(int(broken[0]))}; lower train.learning_rate."
        )
    by_user = AucInGroups.of_rows(data.user, data.clicked, logged)
    gauc, gauc_error = by_user.mean()
    figures = {
        "auc": auc(data.clicked, logged),
        "gauc": gauc,
        "gauc_error": gauc_error,
        "auc_position_free": auc(data.clicked, free),
        "logloss": log_loss(data.clicked, 1.0 / (1.0 + np.exp(-logged))),
    }
    return figures, by_user


def evaluation_steps(steps: list[int], per_epoch: int) -> set[int]:
    """Steps of the run after which to validate: `per_epoch` times an epoch, the last at its end.

    Args:
        steps: number of steps of each epoch.
        per_epoch: validations of an epoch; fewer if an epoch has fewer steps.
    """
    starts = np.cumsum([0, *steps])
    return {
        int(start) + max(1, round(number * count / per_epoch))
        for start, count in zip(starts, steps, strict=False)
        for number in range(1, per_epoch + 1)
    }


def is_better(
    figures: Mapping[str, float], by_user: AucInGroups, best: Mapping[str, float], best_auc: np.ndarray
) -> bool:
    """Whether a state is better than the best so far.

    GAUC decides if its gain is larger than the standard error of the gain, user by user; else log loss, because on a
    day with few clicks GAUC alone picks early, unfinished states by chance. If no user has both clicks and skips, GAUC
    is NaN and log loss decides.

    Args:
        figures: metrics of the state, from `validate`.
        by_user: its AUC of each user.
        best: metrics of the best state.
        best_auc: [users] AUC of each user in the best state.
    """
    gain, error = by_user.gain(best_auc)
    if abs(gain) > error:
        return gain > 0
    return figures["logloss"] < best["logloss"]


def _save_state(state: dict[str, Tensor], file: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in state.items()}, file)

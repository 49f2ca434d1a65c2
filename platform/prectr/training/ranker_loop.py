"""The training loop of every ranker: one worker's view. Read it top to bottom.

Batches are slices of arrays; each distinct (query, title) of a batch is encoded once, in batches of similar length; the
validation day is scored a few times an epoch and the best state by validation GAUC is kept. A run that was killed goes
on from its last checkpoint, and on one worker ends with the very bits it would have ended with. The loop knows no
model: it is given one (`prectr.contracts.types` is the contract), and what it leaves is a directory of files.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prectr.core.dealing import shuffled
from prectr.core.errors import PrectrError
from prectr.core.ray_train import append_curve
from prectr.features.load import Samples, split_days
from prectr.metrics import auc, group_auc, log_loss
from prectr.training.checkpoint import Progress, newest_whole, write_checkpoint
from prectr.training.config import TrainConfig
from prectr.training.data import RankerData
from prectr.training.optimiser import RankerOptimiser
from prectr.training.shards import ShardPlan, batches, part_of
from prectr.training.start import load_weights, unseen_days
from prectr.training.step import TrainingStep
from prectr.training.tracking import open_trackers
from prectr.training.workers import RayWorkers, Workers

CURVE = "learning_curve.jsonl"
STATE = "model.safetensors"


def train_ranker(loop: dict[str, Any]) -> dict[str, Any]:
    """Train one ranker; called in each Ray Train worker. See `Run` for `loop` and what is returned."""
    return Run(loop, RayWorkers()).run()


class Run:
    """One training run, as one of its workers sees it.

    Args:
        loop: `config` (TrainConfig as JSON), `samples` and `encoder` (paths), `out` (directory for the best state and
            the learning curve), `build_ranker(model_config, spec, encoder_path) -> nn.Module`,
            `finish(ranker, out)`, called once with the best state loaded, and, if given, `report(point)`, called with
            every point of the curve, which ends the run early by returning False.
        workers: this worker's place among the others.

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
        samples = Samples.open(Path(loop["samples"]))
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

        self.plan = ShardPlan.of(samples.files(training_days), self.config.rows_in_memory)
        self.steps = self.plan.steps(self.config.seed, self.config.epochs, self.config.batch_size)
        self.evaluate_at = evaluation_steps(self.steps, self.config.evaluations_per_epoch)
        groups = self.ranker.parameter_groups(self.config.learning_rate, self.config.encoder_scale)
        self.optimiser = RankerOptimiser(groups, self.config, sum(self.steps))
        self.samples = samples
        self.validation = self.load(samples.files([validation_day]))
        self.progress = Progress(self.config.seed)
        self.passed_over: list[str] = []
        self._best: dict[str, Tensor] = {}
        self._shard: tuple[tuple[Path, ...], RankerData] | None = None

    def run(self) -> dict[str, Any]:
        """Train to the end.

        Returns:
            facts of the run: rows, steps, the best validation figures, and of this worker, since it was last started:
            seconds spent in steps, rows of them, and what was wrong with checkpoints that it passed over.
        """
        self._resume()
        trackers = open_trackers(
            self.config.tracking, self.out / CURVE, self.config.model.name, {"seed": self.config.seed}
        )
        seconds, rows = 0.0, 0
        for index in self._batches():
            clock = time.perf_counter()
            loss = self._step(part_of(index, self.workers.rank, self.workers.world))
            seconds += time.perf_counter() - clock
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
            "passed_over": self.passed_over,
        }

    def load(self, files: Sequence[Path]) -> RankerData:
        """Rows of some files, in memory."""
        return RankerData(self.samples, files)

    @property
    def _data(self) -> RankerData:
        """The rows of the shard at hand."""
        assert self._shard is not None
        return self._shard[1]

    def _batches(self) -> Iterator[np.ndarray]:
        """The batches that are left, each while the shard that it indexes is at hand."""
        where = self.progress
        for epoch in range(where.epoch, self.config.epochs):
            for shard in self.plan.epoch(self.config.seed, epoch)[where.shard :]:
                if self._shard is None or self._shard[0] != shard.files:
                    self._shard = None  # nothing else holds it: its memory is free before the new one is read
                    self._shard = shard.files, self.load(shard.files)
                generator = np.random.default_rng([self.config.seed, epoch, shard.number])
                order = shuffled(self._data.rows.pair, self.config.pair_rows, generator)
                yield from batches(order, self.config.batch_size, where.row)
                where.shard, where.row = shard.number + 1, 0
            where.epoch, where.shard = epoch + 1, 0

    def _step(self, index: np.ndarray) -> float:
        """One update; returns the loss."""
        done = self.progress.step
        torch.manual_seed(hash((self.config.seed, self.workers.rank, done)))
        self.trained.train()
        losses = self.trained(*self._data.batch(index, self.ranker.reads_behaviours))
        total = float(losses["total"].detach())
        if not np.isfinite(total):
            raise PrectrError(self._explain(losses, index))
        self.optimiser.step(losses["total"], done)
        return total

    def _explain(self, losses: dict[str, Tensor], index: np.ndarray) -> str:
        """Why a loss is not finite: the terms, and the first row that scores so."""
        broken = [name for name, value in losses.items() if name != "total" and not torch.isfinite(value)]
        with torch.no_grad():
            inputs, _, pair = self._data.batch(index, self.ranker.reads_behaviours)
            scored = torch.isfinite(self.step.predict(inputs, pair).click_logit).cpu().numpy()
        row = int(index[np.flatnonzero(~scored)[0]]) if not scored.all() else int(index[0])
        what = "the first row it scores so is" if not scored.all() else "the batch begins with"
        return (
            f"the loss became {float(losses['total'].detach())} at step {self.progress.step} "
            f"({', '.join(broken) or 'total'}); {what} {self._data.name_of(row)}; lower train.learning_rate."
        )

    def _evaluate(self, trackers: Any) -> bool:
        """Score the validation day; False ends the run."""
        where = self.progress
        loss = self.workers.mean(where.recent)
        where.recent = []
        if self.workers.rank:
            return True
        figures = validate(self.step, self.validation)
        point = {"epoch": where.epoch + 1, "step": where.step, "loss": loss, **figures}
        where.curve.append(point)
        trackers.point(where.step, point)
        if not where.best or is_better(figures, where.best):
            where.best = point
            self._best = {name: value.detach().cpu().clone() for name, value in self.ranker.state_dict().items()}
        return self._report(point)

    def _write_checkpoint(self, folder: Path) -> None:
        parts = {"model": self.ranker.state_dict(), "optimiser": self.optimiser.tensors()}
        if self._best:
            parts["best"] = self._best
        write_checkpoint(folder, self.progress, parts)

    def _resume(self) -> None:
        """Go on from the newest whole checkpoint of this run, if there is one."""
        found = newest_whole(self.workers.saved(), self.passed_over)
        (self.out / CURVE).unlink(missing_ok=True)
        if found is None:
            return
        self.progress, parts = found
        self.ranker.load_state_dict(parts["model"])
        self.optimiser.load_tensors(parts["optimiser"])
        self._best = parts.get("best", {})
        if self.workers.rank == 0:
            for point in self.progress.curve:
                append_curve(self.out / CURVE, point)


@torch.no_grad()
def predict(step: TrainingStep, data: RankerData, batch_size: int = 8192) -> tuple[np.ndarray, np.ndarray]:
    """Click logits of all rows, position-free and at the logged position; each [n]."""
    step.eval()
    free, logged = [], []
    # In the order of pairs, so that a pair's text is encoded once or twice, not in every batch it occurs in.
    order = np.argsort(data.rows.pair, kind="stable")
    for index in batches(order, batch_size):
        inputs, labels, pair = data.batch(index, step.ranker.reads_behaviours)
        output = step.predict(inputs, pair)
        free.append(output.click_logit.cpu().numpy())
        position = labels.position.to(output.click_logit.device)
        logged.append(step.ranker.with_position(output.click_logit, position).cpu().numpy())
    back = np.argsort(order, kind="stable")
    return np.concatenate(free)[back], np.concatenate(logged)[back]


def validate(step: TrainingStep, data: RankerData) -> dict[str, float]:
    """Figures on the validation day: with the logged position, and the position-free AUC.

    Raises:
        PrectrError: a score is NaN or infinite.
    """
    free, logged = predict(step, data)
    broken = np.flatnonzero(~np.isfinite(free))
    if len(broken):
        raise PrectrError(
            f"{len(broken)} of {len(data)} scores of the validation day are NaN or infinite, the first that of "
            f"{data.name_of(int(broken[0]))}; lower train.learning_rate."
        )
    by_user = group_auc(data.user, data.clicked, logged)
    return {
        "auc": auc(data.clicked, logged),
        "gauc": by_user.value,
        "gauc_error": by_user.error,
        "auc_position_free": auc(data.clicked, free),
        "logloss": log_loss(data.clicked, 1.0 / (1.0 + np.exp(-logged))),
    }


def evaluation_steps(steps: list[int], a_epoch: int) -> set[int]:
    """After which steps of the run to validate: `a_epoch` times an epoch, always at its end."""
    starts = np.cumsum([0, *steps])
    return {
        int(start) + max(1, round(number * count / a_epoch))
        for start, count in zip(starts, steps, strict=False)
        for number in range(1, a_epoch + 1)
    }


def is_better(figures: dict[str, float], best: dict[str, float]) -> bool:
    """Whether a state beats the best so far: by GAUC where that differs by more than its standard error, or log loss.

    On a day with few clicks GAUC alone picks early, unfinished states by luck. Where no user has both clicks and skips
    it is NaN, and log loss decides.
    """
    gain = figures["gauc"] - best["gauc"]
    if abs(gain) > figures["gauc_error"]:
        return gain > 0
    return figures["logloss"] < best["logloss"]


def _save_state(state: dict[str, Tensor], file: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in state.items()}, file)

"""The training loop of every ranker: one worker's view. Read it top to bottom.

Batches are slices of arrays; each distinct (query, title) of a batch is encoded once, in batches of similar length; the
validation day is scored a few times an epoch and the best state by validation GAUC is kept. The loop knows no model:
it is given one (`prectr.types` is the contract), and what it leaves is a directory of files.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prectr.errors import PrectrError
from prectr.features.inputs import INPUT_NAMES, RowArrays, ranker_inputs
from prectr.metrics import auc, group_auc, log_loss
from prectr.samples.load import Samples, split_days
from prectr.training.config import TrainConfig
from prectr.training.launch import append_curve, autocast
from prectr.types import RankerInputs, RankerLabels, RankerOutput

CURVE = "learning_curve.jsonl"
STATE = "model.safetensors"


class RankerData:
    """Rows of some days as arrays, with their labels, and batches of them as tensors."""

    def __init__(self, samples: Samples, days: list[Any]) -> None:
        frame = samples.frame(days)
        self.samples = samples
        self.rows: RowArrays = samples.rows(frame)
        self.user = frame["user_id"].to_numpy()
        self.clicked = frame["clicked"].to_numpy()
        self.position = frame["position"].to_numpy().astype(np.int64)
        self._refuse_broken()

    def __len__(self) -> int:
        return len(self.rows)

    def _refuse_broken(self) -> None:
        for name in ("numeric", "tolerance", "query_preference"):
            finite = np.isfinite(getattr(self.rows, name)).all(axis=1)
            if not finite.all():
                raise PrectrError(
                    f"{self.samples.path}: {int((~finite).sum())} rows hold NaN or infinite {name} features; "
                    "build the samples again from validated tables."
                )

    def batch(self, index: np.ndarray) -> tuple[RankerInputs, RankerLabels, Tensor]:
        """Inputs and labels of some rows, and the pair of each row (int64 [B])."""
        rows = self.rows.take(index)
        pairs, spec = self.samples.pairs, self.samples.spec
        arrays = ranker_inputs(rows, pairs, spec.user_behaviours, spec.query_behaviours)
        inputs = RankerInputs(**{name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in INPUT_NAMES})
        labels = RankerLabels(
            click=torch.from_numpy(self.clicked[index].astype(np.float32)),
            position=torch.from_numpy(self.position[index]),
            level_soft=torch.from_numpy(pairs.levels[rows.pair]),
            level_known=torch.ones(len(index), dtype=torch.bool),
        )
        return inputs, labels, torch.from_numpy(rows.pair.astype(np.int64))


class TrainingStep(nn.Module):
    """Text, forward and loss as one module, so that data-parallel wrapping sees all of a step."""

    def __init__(self, ranker: nn.Module, samples: Samples, config: TrainConfig) -> None:
        super().__init__()
        self.ranker: Any = ranker
        self._samples, self._config = samples, config
        # A frozen encoder's vectors never change, so each pair is encoded once a run.
        frozen = ranker.uses_text and not ranker.trains_encoder
        self._frozen_text = self._encode_all() if frozen else None

    def text(self, pair: Tensor) -> Tensor:
        """Text vectors [B, d] of the rows' pairs; each distinct pair is encoded once."""
        if not self.ranker.uses_text:
            return torch.zeros(len(pair), self.ranker.sizes.text)
        if self._frozen_text is not None:
            return self._frozen_text[pair]
        distinct, place = torch.unique(pair, return_inverse=True)
        return self._encode(distinct.numpy())[place]

    def predict(self, inputs: RankerInputs, pair: Tensor) -> RankerOutput:
        """Score rows."""
        output: RankerOutput = self.ranker(inputs, self.text(pair))
        return output

    def train(self, mode: bool = True) -> "TrainingStep":
        """As `nn.Module.train`, but the encoder keeps its dropout off: it was fitted in stage 1 and only moves a little
        here, and drawing its masks costs a third of a step on a CPU."""
        super().train(mode)
        self.ranker.encoder.eval()
        return self

    def forward(self, inputs: RankerInputs, labels: RankerLabels, pair: Tensor) -> dict[str, Tensor]:
        """Loss terms of a batch."""
        text = self.text(pair)
        losses: dict[str, Tensor] = self.ranker.loss(self.ranker(inputs, text), inputs, text, labels)
        return losses

    def _encode(self, pairs: np.ndarray) -> Tensor:
        order = np.argsort(self._samples.tokens.lengths[pairs], kind="stable")
        parts = []
        for start in range(0, len(order), self._config.text_batch):
            tokens = self._samples.tokens.padded(pairs[order[start : start + self._config.text_batch]])
            with autocast(self._config.precision):
                text, _ = self.ranker.encoder(**{name: torch.from_numpy(array) for name, array in tokens.items()})
            parts.append(text.float())
        place = torch.empty(len(order), dtype=torch.int64)
        place[torch.from_numpy(order)] = torch.arange(len(order))
        return torch.cat(parts)[place]

    @torch.no_grad()
    def _encode_all(self) -> Tensor:
        self.ranker.encoder.eval()
        return self._encode(np.arange(len(self._samples.tokens)))


def train_ranker(loop: dict[str, Any]) -> dict[str, Any]:
    """Train one ranker; called in each Ray Train worker.

    Args:
        loop: `config` (TrainConfig as JSON), `samples` and `encoder` (paths), `out` (directory for the best state and
            the learning curve), `build_ranker(model_config, sizes, encoder_path) -> nn.Module` and
            `finish(ranker, out)`, called once with the best state loaded.

    Returns:
        facts of the run: steps, rows, seconds, the best validation figures.
    """
    config = TrainConfig.model_validate(loop["config"])
    out = Path(loop["out"])
    rank, world = _rank_and_world()
    torch.manual_seed(config.seed)

    samples = Samples.open(Path(loop["samples"]))
    training_days, validation_day, _ = split_days(samples.days())
    training, validation = RankerData(samples, training_days), RankerData(samples, [validation_day])
    build: Callable[..., Any] = loop["build_ranker"]
    ranker = build(config.model, samples.spec, Path(loop["encoder"]))
    step = TrainingStep(ranker, samples, config)
    trained: nn.Module = step if world == 1 else nn.parallel.DistributedDataParallel(step, find_unused_parameters=True)

    groups = ranker.parameter_groups(config.learning_rate, config.encoder_scale)
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    steps_per_epoch = math.ceil(len(training) / config.batch_size)
    steps = config.epochs * steps_per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: _learning_rate_factor(done, steps, config))
    evaluate_at = {
        round(number * steps_per_epoch / config.evaluations_per_epoch)
        for number in range(1, config.epochs * config.evaluations_per_epoch + 1)
    }

    best: dict[str, Any] = {}
    done, recent = 0, []
    for epoch in range(config.epochs):
        for index in _batches(len(training), config, epoch, rank, world):
            trained.train()
            losses = trained(*training.batch(index))
            total = losses["total"]
            if not torch.isfinite(total):
                raise PrectrError(f"the loss became {total.item()} at step {done}; lower train.learning_rate.")
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], config.clip_norm)
            optimizer.step()
            schedule.step()
            done += 1
            recent.append(float(total.detach()))
            if done in evaluate_at and rank == 0:
                figures = validate(step, validation)
                point = {"epoch": epoch + 1, "step": done, "loss": float(np.mean(recent)), **figures}
                append_curve(out / CURVE, point)
                recent = []
                if not best or _rank_of(figures) > _rank_of(best):
                    best = point
                    _save_state(ranker, out / STATE)
    if rank == 0:
        _load_state(ranker, out / STATE)
        loop["finish"](ranker, out)
    _barrier()
    return {"rows": len(training), "steps": done, "best": best}


@torch.no_grad()
def predict(step: TrainingStep, data: RankerData, batch_size: int = 8192) -> tuple[np.ndarray, np.ndarray]:
    """Click logits of all rows, position-free and at the logged position; each [n]."""
    step.eval()
    free, logged = [], []
    for start in range(0, len(data), batch_size):
        inputs, labels, pair = data.batch(np.arange(start, min(start + batch_size, len(data))))
        output = step.predict(inputs, pair)
        free.append(output.click_logit.numpy())
        logged.append(step.ranker.with_position(output.click_logit, labels.position).numpy())
    return np.concatenate(free), np.concatenate(logged)


def validate(step: TrainingStep, data: RankerData) -> dict[str, float]:
    """Figures on the validation day: with the logged position, and the position-free AUC."""
    free, logged = predict(step, data)
    return {
        "auc": auc(data.clicked, logged),
        "gauc": group_auc(data.user, data.clicked, logged).value,
        "auc_position_free": auc(data.clicked, free),
        "logloss": log_loss(data.clicked, 1.0 / (1.0 + np.exp(-logged))),
    }


def _rank_of(figures: dict[str, float]) -> tuple[float, float]:
    """Larger is better: GAUC, then log loss, which also decides where no user has both clicks and skips (NaN GAUC)."""
    return float(np.nan_to_num(figures["gauc"], nan=0.0)), -figures["logloss"]


def _batches(rows: int, config: TrainConfig, epoch: int, rank: int, world: int) -> Iterator[np.ndarray]:
    """Row numbers of this worker's part of each step; the same global batches for any number of workers.

    Every worker gets as many parts: the workers wait for each other in each step. Where the last batch has fewer rows
    than there are workers, those left over repeat its first row.
    """
    order = np.random.default_rng([config.seed, epoch]).permutation(rows)
    for start in range(0, rows, config.batch_size):
        batch = order[start : start + config.batch_size]
        yield batch[rank::world] if rank < len(batch) else batch[:1]


def _learning_rate_factor(done: int, steps: int, config: TrainConfig) -> float:
    warm = max(1, round(steps * config.warm_up))
    if done < warm:
        return (done + 1) / warm
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (done - warm) / max(1, steps - warm))))


def _rank_and_world() -> tuple[int, int]:
    import ray.train

    context = ray.train.get_context()
    return context.get_world_rank(), context.get_world_size()


def _barrier() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def _save_state(ranker: nn.Module, file: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in ranker.state_dict().items()}, file)


def _load_state(ranker: nn.Module, file: Path) -> None:
    from safetensors.torch import load_file

    ranker.load_state_dict(load_file(file))

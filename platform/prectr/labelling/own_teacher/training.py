"""Supervised fine-tuning of the teacher, with a loss on the label token only [ours].

    loss = -log softmax(W h_last)[label]        over the whole vocabulary, so that little mass stays outside the labels

| symbol | variable |
|---|---|
| W h_last | `last_logits` |
| label | `labels[data.grades[rows]]` |

The loop is one worker's view, to be read top to bottom. Each worker computes its share of every batch and the gradients
are summed, so that a step is the same for any number of workers and micro-batches. After each epoch all workers measure
the validation queries together and decide alike whether to go on. Rank 0 keeps the best epoch and writes the checkpoint
at the end. This module reads no tables and starts no Ray.
"""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from prectr.core.errors import PrectrError, UsageError, shorten
from prectr.core.ray_train import append_curve, autocast
from prectr.labelling.config import TeacherConfig
from prectr.labelling.own_teacher.data import TRAINING, VALIDATION, WARM, TeacherData, bucketed_batches, micro_batches
from prectr.labelling.own_teacher.logits import can_share_prefix, last_logits, reads_ahead
from prectr.labelling.own_teacher.model import add_adapters, checkpoint_data_type, load_base_model, not_causal_message


def train_teacher_loop(config: dict[str, Any]) -> dict[str, Any]:
    """Train in each Ray Train worker (or in-process) and write the best epoch's checkpoint to `config["out"]`.

    Args:
        config: `teacher` (a dumped TeacherConfig), `data` (a file of `save_prompts`), `label_tokens` (token ids by
            grade), `blank` (the token that replaces a blanked one), `model` (the checkpoint to start from), `out` and
            `curve` (paths).

    Returns:
        seconds, epochs, best_epoch, validation_loss (nats), parameters, trained_parameters, shared_prefix_tokens.

    Raises:
        UsageError: the model is not causal, or lacks a layer or feature that the configuration needs.
        PrectrError: the loss is no longer a number.
    """
    import torch

    teacher = TeacherConfig.model_validate(config["teacher"])
    rank, world = _rank_and_world()
    if rank == 0:
        Path(config["curve"]).unlink(missing_ok=True)  # left by a worker that died
    device = "cuda" if teacher.gpus else "cpu"
    generator = np.random.default_rng(teacher.seed)
    torch.manual_seed(teacher.seed)
    model, adapters = _prepare_model(config["model"], teacher, device)
    if rank:  # all workers have the same weights, but draw different dropout
        torch.manual_seed(teacher.seed + rank)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    data = TeacherData.load(Path(config["data"]))
    warm_rows, train_rows, validation_rows = (data.rows(role) for role in (WARM, TRAINING, VALIDATION))
    labels, blank, batch_size = np.array(config["label_tokens"]), config["blank"], teacher.batch_size
    prefix = torch.from_numpy(data.prefix).to(device)

    def on_device(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    sample, sample_lengths = data.padded(train_rows[:4], blank)
    if reads_ahead(model, torch.cat([prefix, on_device(sample[0])])):
        raise UsageError(not_causal_message(config["model"], model.config.model_type))
    # Recomputed activations cannot be combined with a cache.
    share_prefix = not teacher.checkpoint_activations and can_share_prefix(
        model, prefix, on_device(sample), on_device(sample_lengths)
    )

    def logits_of(ids: np.ndarray, lengths: np.ndarray) -> torch.Tensor:
        ids = np.ascontiguousarray(ids[:, : lengths.max()])
        with autocast(teacher.precision, device):
            return last_logits(model, prefix, on_device(ids), on_device(lengths), share_prefix=share_prefix).float()

    def answers(rows: np.ndarray) -> torch.Tensor:
        return on_device(labels[data.grades[rows]])

    total_steps = math.ceil(len(train_rows) / batch_size) * teacher.epochs + math.ceil(len(warm_rows) / batch_size)
    optimizer = torch.optim.AdamW(
        _decay_groups(trained, teacher.weight_decay), lr=teacher.learning_rate, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _cosine(total_steps, teacher.warm_up))

    def train_on(epoch_rows: np.ndarray) -> float:
        """Train for one pass; return the sum of this worker's losses, or NaN if a gradient is not finite."""
        model.train()
        summed = 0.0
        for rows in bucketed_batches(epoch_rows, data.lengths, batch_size, generator):
            # Blanks are drawn for the whole batch, so that they do not depend on the number of workers.
            ids, lengths = data.padded(rows, blank, teacher.token_dropout, generator)
            optimizer.zero_grad(set_to_none=True)
            for part in micro_batches(len(rows), teacher.accumulate, rank, world):
                loss = torch.nn.functional.cross_entropy(
                    logits_of(ids[part], lengths[part]), answers(rows[part]), reduction="sum"
                )
                (loss / len(rows)).backward()
                summed += float(loss.detach())
            _sum_gradients(trained, world)
            # The norm is equal in all workers, so they stop together.
            if not math.isfinite(float(torch.nn.utils.clip_grad_norm_(trained, 1.0))):
                return math.nan
            optimizer.step()
            schedule.step()
        return summed

    def validate() -> tuple[float, float]:
        """Return the sum of this worker's losses over its validation rows, and how many rows it grades right."""
        model.eval()
        ordered = validation_rows[np.argsort(data.lengths[validation_rows], kind="stable")]
        chunks = [ordered[start : start + 4 * batch_size] for start in range(0, len(ordered), 4 * batch_size)]
        summed, right = 0.0, 0
        with torch.inference_mode():
            for rows in chunks[rank::world]:
                logits = logits_of(*data.padded(rows, blank))
                summed += float(torch.nn.functional.cross_entropy(logits, answers(rows), reduction="sum"))
                predicted = logits[:, on_device(labels)].argmax(1).cpu().numpy()
                right += int((predicted == data.grades[rows]).sum())
        return summed, float(right)

    best_loss, best_epoch, epoch, best_weights = math.inf, 0, 0, []
    seconds, started = 0.0, time.perf_counter()
    for epoch in range(0 if len(warm_rows) else 1, teacher.epochs + 1):
        epoch_rows = train_rows if epoch else warm_rows
        worker_sums = [train_on(epoch_rows), *validate(), time.perf_counter() - started if rank == 0 else 0.0]
        train_sum, validation_sum, right, seconds = _sum_over_workers(worker_sums, world, device)
        train_loss, validation_loss = train_sum / len(epoch_rows), validation_sum / len(validation_rows)
        if not math.isfinite(train_loss + validation_loss):
            raise PrectrError(
                f"train-teacher: the loss is no longer a number in epoch {epoch}; lower teacher.learning_rate "
                f"({teacher.learning_rate:g} now)."
            )
        if rank == 0:
            point = {
                "epoch": epoch,
                "train_loss": train_loss,
                "validation_loss": validation_loss,
                "validation_accuracy": right / len(validation_rows),
                "seconds": round(seconds, 1),
            }
            append_curve(Path(config["curve"]), point)
        if validation_loss < best_loss:
            best_loss, best_epoch = validation_loss, epoch
            best_weights = [parameter.detach().to("cpu", copy=True) for parameter in trained] if rank == 0 else []
        if epoch - best_epoch >= teacher.patience or seconds > teacher.max_seconds:
            break
    trained_count = sum(parameter.numel() for parameter in trained)
    facts = {
        "seconds": round(seconds, 1),
        "epochs": epoch,
        "best_epoch": best_epoch,
        "validation_loss": round(best_loss, 4),
        "parameters": sum(parameter.numel() for parameter in model.parameters()) - (trained_count if adapters else 0),
        "trained_parameters": trained_count,
        "shared_prefix_tokens": len(prefix) if share_prefix else 0,
    }
    if rank == 0:
        with torch.no_grad():
            for parameter, value in zip(trained, best_weights, strict=True):
                parameter.copy_(value)
        merged = model if adapters is None else adapters.merge_and_unload()
        merged.to(checkpoint_data_type(config["model"])).save_pretrained(config["out"])
    return facts


def _prepare_model(name: str, teacher: TeacherConfig, device: str) -> tuple[Any, Any]:
    """Load the model for training; return it and peft's view of it (None if all weights are trained).

    All weights are trained in float32. With adapters, the frozen weights keep the checkpoint's type.
    """
    import torch

    model = load_base_model(name, "auto" if teacher.lora_rank else torch.float32).to(device)
    if teacher.checkpoint_activations:
        try:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        except ValueError as error:
            raise UsageError(
                f"teacher.checkpoint_activations: '{name}' does not support it ({shorten(error)}); set it to false."
            ) from None
    if not teacher.lora_rank:
        return model, None
    return model, add_adapters(model, teacher.lora_rank, teacher.lora_alpha, teacher.lora_targets)


def _rank_and_world() -> tuple[int, int]:
    import torch.distributed

    if not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _sum_gradients(parameters: list[Any], world: int) -> None:
    """Sum the gradients over all workers. A worker whose share of the batch is empty adds zero."""
    import torch

    if world == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        torch.distributed.all_reduce(parameter.grad)


def _sum_over_workers(numbers: list[float], world: int, device: str) -> list[float]:
    import torch

    if world == 1:
        return numbers
    total = torch.tensor(numbers, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(total)
    return total.tolist()


def _decay_groups(parameters: list[Any], weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of the optimiser: matrices decay, norms and biases do not."""
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    rest = [parameter for parameter in parameters if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def _cosine(total_steps: int, warm_up: float) -> Any:
    """Learning-rate schedule: linear warm-up, then half a cosine down to a tenth of the peak."""
    warm_up_steps = max(1, int(total_steps * warm_up))

    def factor(step: int) -> float:
        if step < warm_up_steps:
            return (step + 1) / warm_up_steps
        progress = min(1.0, (step - warm_up_steps) / max(1, total_steps - warm_up_steps))
        return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))

    return factor

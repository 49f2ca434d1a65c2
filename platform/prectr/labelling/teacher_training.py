"""Supervised fine-tuning of the teacher: the loss falls on the one label token alone [ours].

    loss = -log softmax(W h_last)[label]        over the whole vocabulary, so that little mass is left outside

All prompts start with the same tokens. Under causal attention their keys and values depend on nothing later, so they
are computed once a batch and shared: exactly what a prefix cache does when the engine answers, and exact in training.
"""

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from prectr.labelling.prompt import LABELS, label_token_ids
from prectr.training.launch import append_curve, autocast

WARM, TRAINING, VALIDATION = 0, 1, 2
"""Roles of a row in the training data: a made pair of the warm start (seen once, as epoch 0), and the judged ones."""


def common_prefix_length(prompts: list[list[int]]) -> int:
    """Number of leading tokens that all prompts share; at least one token of each stays outside it."""
    shortest, longest = min(prompts), max(prompts)
    limit = min(map(len, prompts)) - 1
    differing = (place for place in range(limit) if shortest[place] != longest[place])
    return max(0, next(differing, limit))


def last_logits(model: Any, prefix: Any, suffix: Any, lengths: Any) -> Any:
    """Next-token logits after each prompt `prefix + suffix[row, :lengths[row]]`.

    Args:
        model: a Hugging Face causal language model.
        prefix: int64 [S], the shared leading tokens, S >= 0.
        suffix: int64 [B, L], padded on the right; under causal attention no real token sees the padding.
        lengths: int64 [B], at least 1.

    Returns:
        float [B, vocabulary].
    """
    import torch
    from transformers import DynamicCache

    rows, places = suffix.shape
    cache = None
    if len(prefix):
        cache = DynamicCache()
        model.base_model(input_ids=prefix[None], past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(rows)
    positions = torch.arange(len(prefix), len(prefix) + places, device=suffix.device)
    hidden = model.base_model(
        input_ids=suffix,
        past_key_values=cache,
        use_cache=cache is not None,
        position_ids=positions.expand(rows, places),
    ).last_hidden_state
    return model.get_output_embeddings()(hidden[torch.arange(rows, device=suffix.device), lengths - 1])


def train_teacher_loop(config: dict[str, Any]) -> dict[str, Any]:
    """Train in one Ray Train worker (or in-process) and leave the best epoch's checkpoint in `config["out"]`.

    Args:
        config: `teacher` (a dumped TeacherConfig), `data` (a .npz with jagged prompts, grades, and roles),
            `model` (directory of the starting checkpoint with its tokenizer), `out` and `curve` (paths).

    Returns:
        seconds, epochs, best_epoch, validation_loss, parameters.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    teacher, out, curve = config["teacher"], Path(config["out"]), Path(config["curve"])
    torch.manual_seed(teacher["seed"])
    generator = np.random.default_rng(teacher["seed"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(config["model"], dtype=torch.float32).to(device)
    tokenizer = AutoTokenizer.from_pretrained(config["model"])
    labels = torch.tensor(label_token_ids(tokenizer), device=device)
    blank = tokenizer.eos_token_id

    with np.load(config["data"]) as data:
        values, offsets, grades, role = (data[name] for name in ("values", "offsets", "grades", "role"))
    prompts = [values[start:stop] for start, stop in zip(offsets[:-1], offsets[1:], strict=True)]
    shared = common_prefix_length([prompt.tolist() for prompt in prompts])
    prefix = torch.tensor(prompts[0][:shared].astype(np.int64), device=device)
    suffixes = [prompt[shared:] for prompt in prompts]
    lengths = np.array([len(suffix) for suffix in suffixes])
    shared_end = common_prefix_length([suffix[::-1].tolist() for suffix in suffixes])
    warm_rows, train_rows, validation_rows = (np.flatnonzero(role == number) for number in (WARM, TRAINING, VALIDATION))

    batch_size = teacher["batch_size"]
    steps_per_epoch = math.ceil(len(train_rows) / batch_size)
    total_steps = steps_per_epoch * teacher["epochs"] + math.ceil(len(warm_rows) / batch_size)
    optimizer = torch.optim.AdamW(
        _decay_groups(model, teacher["weight_decay"]), lr=teacher["learning_rate"], betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _cosine(total_steps, teacher["warm_up"]))

    def logits_of(rows: np.ndarray, dropout: float = 0.0) -> torch.Tensor:
        real = np.arange(lengths[rows].max()) < lengths[rows][:, None]
        suffix = np.full(real.shape, blank, np.int64)
        suffix[real] = np.concatenate([suffixes[row] for row in rows])
        if dropout:
            # Never the question's end, which all prompts share.
            open_places = np.arange(real.shape[1]) < lengths[rows][:, None] - shared_end
            suffix[open_places & (generator.random(real.shape) < dropout)] = blank
        with autocast(teacher["precision"], device):
            logits = last_logits(
                model, prefix, torch.from_numpy(suffix).to(device), torch.from_numpy(lengths[rows]).to(device)
            )
        return logits.float()

    def answers(rows: np.ndarray) -> torch.Tensor:
        return labels[torch.from_numpy(grades[rows].astype(np.int64)).to(device)]

    best_loss, best_epoch, epoch, started = math.inf, 0, 0, time.perf_counter()
    for epoch in range(0 if len(warm_rows) else 1, teacher["epochs"] + 1):
        model.train()
        summed, epoch_rows = 0.0, train_rows if epoch else warm_rows
        for rows in bucketed_batches(epoch_rows, lengths, batch_size, generator):
            loss = torch.nn.functional.cross_entropy(logits_of(rows, teacher["token_dropout"]), answers(rows))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            summed += float(loss) * len(rows)
        model.eval()
        with torch.inference_mode():
            ordered = validation_rows[np.argsort(lengths[validation_rows], kind="stable")]
            chunks = [ordered[start : start + 4 * batch_size] for start in range(0, len(ordered), 4 * batch_size)]
            logits = torch.cat([logits_of(rows) for rows in chunks]).cpu()
            expected = torch.from_numpy(grades[ordered].astype(np.int64))
            validation_loss = float(torch.nn.functional.cross_entropy(logits, labels.cpu()[expected]))
            accuracy = float((logits[:, labels.cpu()].argmax(1) == expected).float().mean())
        seconds = time.perf_counter() - started
        append_curve(
            curve,
            {
                "epoch": epoch,
                "train_loss": summed / len(epoch_rows),
                "validation_loss": validation_loss,
                "validation_accuracy": accuracy,
                "seconds": round(seconds, 1),
            },
        )
        if validation_loss < best_loss:
            best_loss, best_epoch = validation_loss, epoch
            model.save_pretrained(out)
        if epoch - best_epoch >= teacher["patience"] or seconds > teacher["max_seconds"]:
            break
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "epochs": epoch,
        "best_epoch": best_epoch,
        "validation_loss": round(best_loss, 4),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "labels": json.dumps(dict(zip(LABELS, labels.tolist(), strict=True))),
    }


def bucketed_batches(
    rows: np.ndarray, lengths: np.ndarray, batch_size: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """Shuffled batches of similar lengths: every row once; sorted by length only inside chunks of 16 batches."""
    shuffled = generator.permutation(rows)
    batches: list[np.ndarray] = []
    for start in range(0, len(shuffled), 16 * batch_size):
        chunk = shuffled[start : start + 16 * batch_size]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        batches.extend(chunk[at : at + batch_size] for at in range(0, len(chunk), batch_size))
    return [batches[place] for place in generator.permutation(len(batches))]


def _decay_groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay, norms and biases do not."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    rest = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def _cosine(total_steps: int, warm_up: float) -> Any:
    """Linear warm-up, then half a cosine down to a tenth."""
    rising = max(1, int(total_steps * warm_up))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, total_steps - rising))))

    return factor

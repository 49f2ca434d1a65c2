"""The sides of the loop comparison, each a process of its own: `_training_loop.py SIDE SAMPLES ENCODER CONFIG OUT`.

Both train one model on the same batches from the same start: `ours` is `prectr.training.ranker_loop.Run` without Ray
Train around it; `bare` holds every row as tensors that need no assembly and does nothing else but the steps: no
validation, no checkpoints, no curve, no look at the loss.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from jobs.train import build_ranker_from
from prectr.core.dealing import shuffled
from prectr.core.ray_train import autocast
from prectr.features.load import Samples, split_days
from prectr.training.config import TrainConfig
from prectr.training.data import RankerData
from prectr.training.optimiser import learning_rate_factor
from prectr.training.ranker_loop import Run
from prectr.training.workers import Workers

PREPARED_ROWS = 50_000
"""Rows that the bare loop turns into tensors at a time, before its clock runs."""


def now() -> np.ndarray:
    """The time, and the processor time of this process: seconds [2]."""
    return np.array([time.perf_counter(), time.process_time()])


class TimedRun(Run):
    """Notes what the run spends on reading rows and on validation: seconds, processor seconds."""

    loading = validating = np.zeros(2)

    def load(self, *arguments: Any) -> RankerData:
        """As the run's own."""
        clock = now()
        found = super().load(*arguments)
        self.loading = self.loading + now() - clock
        return found

    def _evaluate(self, trackers: Any) -> bool:
        clock = now()
        goes_on = super()._evaluate(trackers)
        self.validating = self.validating + now() - clock
        return goes_on


def ours(samples: Path, encoder: Path, config: TrainConfig, out: Path) -> dict[str, Any]:
    """The training loop, one worker."""
    loop = {
        "config": config.model_dump(mode="json"),
        "samples": str(samples),
        "encoder": str(encoder),
        "out": str(out),
        "build_ranker": build_ranker_from,
        "finish": lambda ranker, folder: None,
    }
    run = TimedRun(loop, Workers())
    run.loading = np.zeros(2)  # the validation day, read at the start
    clock = now()
    facts = run.run()
    reading = now() - clock - run.validating
    whole = reading - run.loading
    rows = facts["step_rows"]
    return {
        "samples_per_second": rows / facts["step_seconds"],
        "whole_run_per_second": rows / whole[0],
        "whole_run_per_cpu_second": rows / whole[1],
        "with_reading_per_second": rows / reading[0],
        "loss": run.progress.curve[0]["loss"],
    }


def bare(samples: Path, encoder: Path, config: TrainConfig, out: Path) -> dict[str, Any]:
    """The plainest loop over tensors in memory."""
    torch.manual_seed(config.seed)
    opened = Samples.open(samples)
    training_days, _, _ = split_days(opened.days())
    data = RankerData(opened, opened.files(training_days))
    ranker = build_ranker_from(config.model, opened.spec, encoder)
    inputs, labels, pair = prepared(data, ranker.reads_behaviours)
    tokens = {
        name: torch.from_numpy(array) for name, array in opened.tokens.padded(np.arange(len(opened.tokens))).items()
    }
    match = tokens.pop("match")  # one row of numbers a pair, whatever its length
    lengths = torch.from_numpy(opened.tokens.lengths)

    def encoded(pairs: torch.Tensor) -> torch.Tensor:
        order = lengths[pairs].argsort(stable=True)
        texts = []
        for rows in pairs[order].split(config.text_batch):
            longest = int(lengths[rows].max())
            with autocast(config.precision):
                text, _ = ranker.encoder(
                    match=match[rows], **{name: tensor[rows, :longest] for name, tensor in tokens.items()}
                )
            texts.append(text.float())
        return torch.cat(texts)[order.argsort()]

    text_of = text_source(ranker, encoded, len(lengths))
    groups = ranker.parameter_groups(config.learning_rate, config.encoder_scale)
    trained = [parameter for group in groups for parameter in group["params"]]
    optimiser = torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)
    steps = config.epochs * math.ceil(len(pair) / config.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda done: learning_rate_factor(done, steps, config.warm_up)
    )
    ranker.train()
    ranker.encoder.eval()
    losses, seconds = [], np.zeros(2)
    for epoch in range(config.epochs):
        # The order is made with the loop's own function and outside the clock: it is the batches' identity.
        order = torch.from_numpy(
            shuffled(data.rows.pair, config.pair_rows, np.random.default_rng([config.seed, epoch, 0]))
        )
        clock = now()
        for index in order.split(config.batch_size):
            torch.manual_seed(hash((config.seed, 0, len(losses))))
            batch = type(inputs)(*(column[index] for column in inputs))
            answers = type(labels)(*(None if column is None else column[index] for column in labels))
            text = text_of(pair[index])
            loss = ranker.loss(ranker(batch, text), batch, text, answers)["total"]
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(trained, config.clip_norm)
            optimiser.step()
            schedule.step()
            losses.append(loss.detach())
        seconds += now() - clock
    rows = config.epochs * len(pair)
    return {
        "samples_per_second": rows / seconds[0],
        "samples_per_cpu_second": rows / seconds[1],
        "loss": float(torch.stack(losses[: steps // config.epochs]).mean()),
    }


def text_source(
    ranker: Any, encoded: Callable[[torch.Tensor], torch.Tensor], pairs: int
) -> Callable[..., torch.Tensor]:
    """What gives the text vectors of rows from their pairs: a distinct pair is encoded once, a frozen one for good."""
    if not ranker.uses_text:
        return lambda pair: torch.zeros(len(pair), ranker.sizes.text)
    if not ranker.trains_encoder:
        ranker.encoder.eval()
        with torch.no_grad():
            known = encoded(torch.arange(pairs))
        return lambda pair: known[pair]

    def distinct(pair: torch.Tensor) -> torch.Tensor:
        found, place = torch.unique(pair, return_inverse=True)
        return encoded(found)[place]

    return distinct


def prepared(data: RankerData, behaviours: bool) -> tuple[Any, Any, torch.Tensor]:
    """All rows as tensors."""
    parts = [
        data.batch(np.arange(start, min(start + PREPARED_ROWS, len(data))), behaviours)
        for start in range(0, len(data), PREPARED_ROWS)
    ]
    inputs, labels, pairs = zip(*parts)
    joined = (
        type(group[0])(*(None if column[0] is None else torch.cat(column) for column in zip(*group)))
        for group in (inputs, labels)
    )
    return next(joined), next(joined), torch.cat(pairs)


SIDES = {"ours": ours, "bare": bare}


def main() -> None:
    """Be one side."""
    side, samples, encoder, settings, out = sys.argv[1:]
    config = TrainConfig.model_validate_json(settings)
    torch.set_num_threads(config.cpus)
    figures = SIDES[side](Path(samples), Path(encoder), config, Path(out))
    (Path(out) / "figures.json").write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()

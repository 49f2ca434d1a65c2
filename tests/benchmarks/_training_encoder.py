"""The encoder in joint training: `python _training_encoder.py SAMPLES ENCODER CONFIG STEPS VARIANTS OUT`, one process.

The first batches of a training run, in its order and through its own code: how often a text is encoded, how much of
what is encoded is padding, what share of a step the encoder takes, and at which rate its matrix products run. FLOPs are
counted on real tokens, so padding counts as lost time. The yardstick is the encoder's linear layers alone, forward and
backward, as plain matmuls of the same shapes and number format. Two ratios to it: `ratio_to_matmul` is the rate within
the encoder's products (by torch's profiler, which slows them a little), `ratio_of_encoder` that of the whole encoder,
where everything that is no product counts as lost too. All times are processor seconds, but the products' are those of
the clock, so a busy machine makes their ratio too small.
"""

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from jobs.train import build_ranker_from
from prectr.core.dealing import shuffled
from prectr.core.ray_train import has_amx
from prectr.features.load import Samples, split_days
from prectr.training.config import TrainConfig
from prectr.training.data import RankerData
from prectr.training.optimiser import RankerOptimiser
from prectr.training.shards import batches
from prectr.training.step import TrainingStep

VARIANTS = [
    (attention, text_batch, precision)
    for attention in ("sdpa", "eager")
    for precision in ("float32", "bfloat16")
    for text_batch in (64, 128, 256, 512, 1024, 2048)
]


PRODUCTS = ("aten::addmm", "aten::mm", "aten::bmm", "aten::baddbmm")
"""Operators that are matrix products, as torch's profiler names them."""
FUSED_ATTENTION = "aten::_scaled_dot_product"
"""How operators begin whose products cannot be told from the rest of attention: they count whole."""

REPETITIONS = 5
"""Of each product of the yardstick."""


class Batch:
    """A batch's rows, their pairs, and the lengths of the distinct ones, ascending as the encoder sees them."""

    def __init__(self, data: RankerData, index: np.ndarray) -> None:
        self.index = index
        self.pair = torch.from_numpy(data.rows.pair[index].astype(np.int64))
        self.lengths = np.sort(data.samples.tokens.lengths[np.unique(data.rows.pair[index])])

    def chunks(self, text_batch: int) -> list[np.ndarray]:
        """Lengths of the pairs that the encoder sees at once."""
        return [self.lengths[start : start + text_batch] for start in range(0, len(self.lengths), text_batch)]

    def padding(self, text_batch: int) -> int:
        """Padded places of all its text batches."""
        return sum(int(chunk.max()) * len(chunk) - int(chunk.sum()) for chunk in self.chunks(text_batch))


def linear_layers(encoder: Any) -> list[tuple[int, int]]:
    """Widths in and out of the linear layers that every token passes."""
    stack = next(module for module in encoder.modules() if isinstance(module, nn.ModuleList))
    return [(layer.in_features, layer.out_features) for layer in stack.modules() if isinstance(layer, nn.Linear)]


def product_flops(encoder: Any, lengths: np.ndarray) -> float:
    """FLOPs of linear layers and attention's two products on real tokens; backward costs twice the forward."""
    shapes, layers = linear_layers(encoder), encoder.model.config.num_hidden_layers
    linear = 2 * sum(one * other for one, other in shapes) * float(lengths.sum())
    attention = 2 * 2 * encoder.model.config.hidden_size * layers * float(np.square(lengths.astype(np.float64)).sum())
    return 3 * (linear + attention)


def matmul_rate(shapes: list[tuple[int, int]], chunks: list[np.ndarray], data_type: torch.dtype) -> float:
    """FLOPs a second of the linear layers' products alone: y = x w, and both gradients."""
    flops = seconds = 0.0
    for tokens in {int(chunk.sum()) for chunk in chunks}:
        for inputs, outputs in shapes:
            x, w = torch.randn(tokens, inputs, dtype=data_type), torch.randn(outputs, inputs, dtype=data_type)
            gradient = torch.randn(tokens, outputs, dtype=data_type)
            for turn in range(1 + REPETITIONS):
                clock = time.process_time()
                x @ w.T, gradient @ w, gradient.T @ x
                if turn:  # the first one warms up
                    seconds += time.process_time() - clock
                    flops += 6.0 * tokens * inputs * outputs
    return flops / seconds


def time_encoder(step: TrainingStep, some: list[Batch]) -> float:
    """Seconds of the encoder's forward and backward passes over some batches."""
    seconds = 0.0
    for batch in some:
        gradient = torch.randn(len(batch.pair), step.ranker.encoder.width)
        step.zero_grad(set_to_none=True)
        clock = time.process_time()
        step.text(batch.pair).backward(gradient)
        seconds += time.process_time() - clock
    return seconds


def time_products(step: TrainingStep, some: list[Batch]) -> float:
    """Seconds of them in matrix products."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        time_encoder(step, some)
    return sum(
        float(operator.self_cpu_time_total) / 1e6
        for operator in profile.key_averages()
        if operator.key in PRODUCTS or operator.key.startswith(FUSED_ATTENTION)
    )


def is_bfloat16(config: TrainConfig) -> bool:
    """Whether the encoder runs in bfloat16 on this CPU."""
    return config.precision == "bfloat16" or (config.precision == "auto" and has_amx())


def figures_of(config: TrainConfig, step: TrainingStep, some: list[Batch]) -> dict[str, Any]:
    """How fast the encoder is with one configuration."""
    encoder = step.ranker.encoder
    time_encoder(step, some[:1])
    seconds = time_encoder(step, some)
    product_seconds = time_products(step, some)
    flops = sum(product_flops(encoder, batch.lengths) for batch in some)
    pairs, tokens = sum(len(batch.lengths) for batch in some), sum(int(batch.lengths.sum()) for batch in some)
    padding = sum(batch.padding(config.text_batch) for batch in some)
    data_type = torch.bfloat16 if is_bfloat16(config) else torch.float32
    yardstick = matmul_rate(linear_layers(encoder), some[0].chunks(config.text_batch), data_type)
    return {
        "ratio_to_matmul": round(flops / product_seconds / yardstick, 3),
        "ratio_of_encoder": round(flops / seconds / yardstick, 3),
        "gflops": round(flops / product_seconds / 1e9, 1),
        "matmul_gflops": round(yardstick / 1e9, 1),
        "pairs_per_cpu_second": round(pairs / seconds),
        "padding": round(padding / (padding + tokens), 4),
        "seconds": seconds,
    }


def main() -> None:
    """Measure, as trained; with VARIANTS n, also every n-th of the other kernels, sizes and number formats."""
    samples, encoder, settings, count, variants, out = sys.argv[1:]
    config = TrainConfig.model_validate_json(settings)
    torch.set_num_threads(config.cpus)
    torch.manual_seed(config.seed)
    opened = Samples.open(Path(samples))
    days, _, _ = split_days(opened.days())
    data = RankerData(opened, opened.files(days))
    ranker = build_ranker_from(config.model, opened.spec, Path(encoder))
    step = TrainingStep(ranker, opened, config).train()
    order = shuffled(data.rows.pair, config.pair_rows, np.random.default_rng([config.seed, 0, 0]))
    some = [Batch(data, index) for index in list(batches(order, config.batch_size))[: int(count)]]
    found = figures_of(config, step, some)
    encoder_seconds = found.pop("seconds")

    optimiser = RankerOptimiser(ranker.parameter_groups(config.learning_rate), config, len(some) + 1)
    seconds = []
    for done, batch in enumerate([some[0], *some]):
        clock = time.process_time()
        optimiser.step(step(*data.batch(batch.index, ranker.reads_behaviours))["total"], done)
        seconds.append(time.process_time() - clock)
    found |= {
        "share_of_step": round(encoder_seconds / sum(seconds[1:]), 3),
        "rows_a_batch": round(statistics.mean(len(batch.index) for batch in some)),
        "distinct_pairs_a_batch": round(statistics.mean(len(batch.lengths) for batch in some)),
        "tokens_a_pair": round(sum(int(batch.lengths.sum()) for batch in some) / sum(len(b.lengths) for b in some), 1),
        "text_batch": config.text_batch,
        "precision": config.precision,
        "attention": ranker.encoder.model.config._attn_implementation,
    }
    if int(variants):
        found["variants"] = {}
        for attention, text_batch, precision in VARIANTS[:: int(variants)]:
            ranker.encoder.model.set_attn_implementation(attention)
            changed = config.model_copy(update={"text_batch": text_batch, "precision": precision})
            one = figures_of(changed, TrainingStep(ranker, opened, changed).train(), some)
            del one["seconds"]
            found["variants"][f"{attention} {precision} {text_batch}"] = one
    (Path(out) / "figures.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()

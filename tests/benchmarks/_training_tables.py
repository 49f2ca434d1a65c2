"""A DeepFM with a table of many ids: `python _training_tables.py ROWS STEPS OUT`; steps a second, checkpoint times.

The process's peak memory is whoever started it to see. Batches are drawn outside the clock.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from _training_clicks import Clicks
from _training_deepfm_ours import Rows, new_ranker

from prectr.contracts.model_config import BaselineConfig, ModelConfig
from prectr.training.checkpoint import Progress, read_checkpoint, write_checkpoint
from prectr.training.config import TrainConfig
from prectr.training.optimiser import RankerOptimiser
from prectr.training.step import TrainingStep

SMALL_FIELDS = 5
SMALL_IDS = 1_000
WIDTH = 16
BATCH_SIZE = 4096


def main() -> None:
    """Train some steps, write a checkpoint as the loop does, read it."""
    rows, steps, out = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = ModelConfig(name="deepfm", baseline=BaselineConfig(hidden=(256, 128), embedding=WIDTH))
    config = TrainConfig(model=model, cpus=1)
    cardinalities = {"item": rows} | {f"field_{number}": SMALL_IDS for number in range(SMALL_FIELDS)}
    ranker = new_ranker(cardinalities, config.model)
    step = TrainingStep(ranker, None, config)  # type: ignore[arg-type]  # its texts: DeepFM reads none
    optimiser = RankerOptimiser(ranker.parameter_groups(config.learning_rate), config, steps)
    generator = np.random.default_rng(0)
    many = steps * BATCH_SIZE
    ids = np.stack([generator.integers(1, count, many, dtype=np.int32) for count in cardinalities.values()], axis=1)
    data = Rows(Clicks(ids, (generator.random(many) < 0.05).astype(np.float32)))
    step.train()
    cpu, clock = time.process_time(), time.perf_counter()
    for done in range(steps):
        optimiser.step(step(*data.batch(np.arange(done * BATCH_SIZE, (done + 1) * BATCH_SIZE)))["total"], done)
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - clock
    folder = out / "checkpoint"
    folder.mkdir()
    clock = time.perf_counter()
    state = ranker.state_dict()
    best = {name: value.clone() for name, value in state.items()}  # the loop keeps the best state beside the last one
    write_checkpoint(folder, Progress(0), {"model": state, "optimiser": optimiser.tensors(), "best": best})
    written, clock = time.perf_counter() - clock, time.perf_counter()
    read_checkpoint(folder)
    figures = {
        "steps_per_second": round(steps / seconds, 2),
        "samples_per_cpu_second": round(many / cpu),
        "checkpoint_write_seconds": round(written, 2),
        "checkpoint_read_seconds": round(time.perf_counter() - clock, 2),
        "checkpoint_gib": round(sum(file.stat().st_size for file in folder.iterdir()) / 2**30, 3),
    }
    (out / "figures.json").write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()

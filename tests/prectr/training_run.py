"""A run of the training loop under Ray Train: `python -m tests.prectr.training_run SAMPLES WORK RESULT`.

Each step takes a little while, so that there is a middle to be killed in.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from prectr.contracts.model_config import EncoderConfig, ModelConfig
from prectr.core.ray_session import RayConfig, ray_session, resources

ENCODER = EncoderConfig(layers=1, width=8, heads=2, feed_forward=16, dropout=0.0)
STEP_SECONDS = 0.05
CHANGES = {
    "model": {"name": "prectr-v2"},
    "epochs": 30,
    "batch_size": 8,
    "checkpoint_steps": 10,
    "evaluations_per_epoch": 1,
}


def build_slow_ranker(config: ModelConfig, spec: Any, encoder: Path) -> Any:
    """A small PRECTR-V2; notes the process of each worker beside the encoder path that it is given."""
    from jobs.distill import build_marked_encoder
    from models.registry import build_ranker

    with (encoder.parent / "workers.txt").open("a") as stream:
        stream.write(f"{os.getpid()}\n")
    ranker = build_ranker(config, spec.sizes(ENCODER.text_width), build_marked_encoder(ENCODER, 40))
    ranker.position.register_forward_pre_hook(lambda *_: time.sleep(STEP_SECONDS))
    return ranker


def save_state(ranker: Any, out: Path) -> None:
    """The loop itself has saved the state."""


def train(samples: Path, work: Path, **options: Any) -> dict[str, Any]:
    """Train under Ray Train in `work`; returns the facts."""
    from prectr.core.ray_train import fit_on_ray
    from prectr.training.config import TrainConfig
    from prectr.training.ranker_loop import CURVE
    from prectr.training.ray_loop import train_ranker

    workers = options.pop("workers", 1)
    config = TrainConfig.model_validate(CHANGES | options.pop("changes", {}))
    out, kept = work / "out", work / "kept"
    out.mkdir(parents=True, exist_ok=True)
    kept.mkdir(exist_ok=True)
    loop = {
        "config": config.model_dump(mode="json"),
        "samples": str(samples),
        "encoder": str(work / "encoder"),
        "out": str(out),
        "build_ranker": build_slow_ranker,
        "finish": save_state,
    }
    return fit_on_ray(
        train_ranker,
        loop,
        name="train",
        storage=work,
        workers=workers,
        of_worker=resources(cpus=options.pop("cpus", 1)),
        curve=out / CURVE,
        resumable=kept,
        **options,
    )


if __name__ == "__main__":
    samples, work, result = map(Path, sys.argv[1:])
    with ray_session(RayConfig(num_cpus=4, object_store_gib=0.2)):
        result.write_text(json.dumps(train(samples, work)))

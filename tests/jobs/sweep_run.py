"""A sweep whose trials leave a line when they start: `python -m tests.jobs.sweep_run SAMPLES ENCODER OUT STARTS`.

Each step takes a little while, so that there is a middle to be killed in.
"""

import functools
import sys
import time
from pathlib import Path
from typing import Any

from jobs import sweep
from jobs.train import build_ranker_from
from prectr.contracts.model_config import ModelConfig
from prectr.core.ray_session import RayConfig
from prectr.training.config import TrainConfig
from prectr.training.sweep_config import SearchRange, SweepConfig

STEP_SECONDS = 0.05
TRAIN = TrainConfig(
    model=ModelConfig(name="wide-deep"), epochs=2, batch_size=16, evaluations_per_epoch=2, cpus=1, precision="float32"
)
SWEEP = SweepConfig(
    search={
        "learning_rate": SearchRange(low=1e-3, high=3e-2, log=True),
        "batch_size": SearchRange(choices=(8, 16)),
        "model.baseline.hidden": SearchRange(choices=((8,), (16, 8))),
    },
    trials=5,
    grace=1,
    reduction=2,
    metric="logloss",
)


def build_noted_ranker(config: ModelConfig, spec: Any, encoder: Path, starts: Path) -> Any:
    """The ranker that `train` would build; its start is noted, its steps are slow."""
    with starts.open("a") as stream:
        stream.write("started\n")
    ranker = build_ranker_from(config, spec, encoder)
    ranker.position.register_forward_pre_hook(lambda *_: time.sleep(STEP_SECONDS))
    return ranker


def run(
    samples: Path,
    encoder: Path,
    out: Path,
    starts: Path,
    config: SweepConfig = SWEEP,
    train: TrainConfig = TRAIN,
    **options: Any,
) -> Any:
    """`jobs.sweep.run` with noted trials."""
    sweep.build_ranker_from = functools.partial(build_noted_ranker, starts=starts)
    try:
        return sweep.run(
            samples=samples,
            encoder=encoder,
            out=out,
            config=config,
            train=train,
            ray_config=RayConfig(num_cpus=2, object_store_gib=0.2),
            **options,
        )
    finally:
        sweep.build_ranker_from = build_ranker_from


if __name__ == "__main__":
    run(*map(Path, sys.argv[1:]))

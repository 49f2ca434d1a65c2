"""Our side of the DeepFM comparison: `python _training_deepfm_ours.py FOLDER OUT OPTIONS` (JSON).

The model `deepfm`, `TrainingStep` and `RankerOptimiser` as `train` uses them, batches sliced from arrays by the code
that slices them there. No text, no numbers, no behaviours: their arrays have width 0.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _training_clicks import CARDINALITY, FIELDS, Clicks, batches

from models.encoder import build_encoder
from models.registry import build_ranker
from prectr.contracts.model_config import (
    BEHAVIOUR_FIELDS,
    LEVELS,
    TARGET_FIELDS,
    BaselineConfig,
    EncoderConfig,
    FeatureSizes,
    ModelConfig,
)
from prectr.contracts.types import RankerInputs, RankerLabels
from prectr.features.inputs import INPUT_NAMES, Histories, PaddedBehaviours, PairArrays, RowArrays, ranker_inputs
from prectr.training.config import TrainConfig
from prectr.training.optimiser import RankerOptimiser
from prectr.training.step import TrainingStep

PREDICT_ROWS = 16384
FOREVER = 10**9
"""Steps of the schedule: the learning rate stays where it starts, as the other side's does."""
TINY_ENCODER = EncoderConfig(layers=1, width=8, heads=1, feed_forward=8, max_length=8)
"""Every ranker owns an encoder; DeepFM never runs it."""


def sizes_of(cardinalities: dict[str, int]) -> FeatureSizes:
    """Features that are categorical fields and nothing else."""
    return FeatureSizes(
        categorical=cardinalities,
        numeric=0,
        match=LEVELS,
        tolerance=0,
        query_preference=0,
        behaviour=dict.fromkeys(BEHAVIOUR_FIELDS, LEVELS + 1),
        user_group=1,
        text=TINY_ENCODER.width,
        positions=1,
    )


def new_ranker(cardinalities: dict[str, int], config: ModelConfig) -> Any:
    """A DeepFM on these fields."""
    return build_ranker(config, sizes_of(cardinalities), build_encoder(TINY_ENCODER, 8))


class Rows:
    """Clicks in the form in which `prectr.training.data` holds samples."""

    def __init__(self, clicks: Clicks) -> None:
        rows, nothing = len(clicks), np.zeros((len(clicks), 0), np.float32)
        fields = len(BEHAVIOUR_FIELDS)
        empty = [
            PaddedBehaviours(np.zeros((1, 0, width), np.int32), np.zeros(1, np.int64)) for width in (fields, fields + 1)
        ]
        self._clicked = clicks.clicked
        self._pairs = PairArrays(
            np.zeros((1, len(TARGET_FIELDS)), np.int32),
            np.zeros(1, np.int32),
            np.zeros((1, LEVELS), np.float32),
            np.full((1, LEVELS), 1 / LEVELS, np.float32),
        )
        self._rows = RowArrays(
            np.zeros(rows, np.int32), np.zeros(rows, np.int64), clicks.ids, nothing, nothing, nothing, Histories(*empty)
        )

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, index: np.ndarray) -> tuple[RankerInputs, RankerLabels, torch.Tensor]:
        """What `RankerData.batch` gives."""
        rows = self._rows.take(index)
        arrays = ranker_inputs(rows, self._pairs, behaviours=False)
        inputs = RankerInputs(**{name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in INPUT_NAMES})
        labels = RankerLabels(
            click=torch.from_numpy(self._clicked[index]),
            position=torch.ones(len(index), dtype=torch.int64),
            level_soft=torch.from_numpy(self._pairs.levels[rows.pair]),
            level_known=torch.ones(len(index), dtype=torch.bool),
        )
        return inputs, labels, torch.from_numpy(rows.pair.astype(np.int64))


def main() -> None:
    """Train one epoch, score the test rows."""
    folder, out, options = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    torch.set_num_threads(1)
    torch.manual_seed(options["seed"])
    train, test = (Rows(Clicks.load(folder / f"{name}.npz")) for name in ("train", "test"))
    config = TrainConfig(
        model=ModelConfig(
            name="deepfm",
            baseline=BaselineConfig(hidden=(256, 128), embedding=16),
            table_rate_scale=options["table_rate_scale"],
        ),
        learning_rate=options["learning_rate"],
        weight_decay=0.0,
        warm_up=0.0,
        clip_norm=10.0,
        cpus=1,
    )
    ranker = new_ranker({f"field_{number}": CARDINALITY for number in range(FIELDS)}, config.model)
    step = TrainingStep(ranker, None, config)  # type: ignore[arg-type]  # its texts: DeepFM reads none
    steps = batches(len(train), options["batch_size"], options["seed"])
    optimiser = RankerOptimiser(ranker.parameter_groups(config.learning_rate), config, FOREVER)
    step.train()
    cpu, clock = time.process_time(), time.perf_counter()
    for done, index in enumerate(steps):
        optimiser.step(step(*train.batch(index))["total"], done)
    figures = {"cpu_seconds": time.process_time() - cpu, "seconds": time.perf_counter() - clock, "steps": len(steps)}
    step.eval()
    found = []
    with torch.no_grad():
        for start in range(0, len(test), PREDICT_ROWS):
            inputs, _, pair = test.batch(np.arange(start, min(start + PREDICT_ROWS, len(test))))
            found.append(step.predict(inputs, pair))
    np.save(out / "scores.npy", torch.cat([output.click_logit for output in found]).numpy())
    (out / "figures.json").write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()

"""FuxiCTR's side of the DeepFM comparison: `python _training_deepfm_fuxictr.py FOLDER OUT OPTIONS` (JSON).

Runs in an environment with fuxictr 2.3.10 and without this project's code. The wheel holds layers and `BaseModel`, not
the model files, so DeepFM is put together from them here; a step is `BaseModel.train_step`, the optimiser its Adam. Its
collator hands a model one tensor a column, cut from a batch of rows; so does this one, without worker processes.
"""

import json
import sys
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from _training_clicks import CARDINALITY, FIELDS, Clicks, batches
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import FactorizationMachine, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel

LABEL = "clicked"
WIDTH = 16
PREDICT_ROWS = 16384


class DeepFM(BaseModel):
    """First order, pairs and MLP over one set of embeddings, in FuxiCTR's layers and with its activation."""

    def __init__(self, feature_map: FeatureMap, work: Path, learning_rate: float, deviation: float) -> None:
        super().__init__(feature_map, "DeepFM", verbose=0, model_root=str(work), metrics=["AUC"])
        self.embedding = FeatureEmbedding(
            feature_map, WIDTH, embedding_initializer=f"partial(nn.init.normal_, std={deviation})"
        )
        self.pairs = FactorizationMachine(feature_map)
        self.deep = MLP_Block(feature_map.sum_emb_out_dim(), [256, 128], "ReLU", output_dim=1)
        self.compile("adam", "binary_crossentropy", learning_rate)
        self.reset_parameters()

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Click probability [B, 1]."""
        columns = self.get_inputs(inputs)
        embedded = self.embedding(columns)
        logit = self.pairs(columns, embedded) + self.deep(embedded.flatten(1))
        return {"y_pred": self.output_activation(logit)}


class Rows:
    """Clicks as one tensor of rows."""

    def __init__(self, clicks: Clicks, names: list[str]) -> None:
        self._ids, self._clicked = torch.from_numpy(clicks.ids.astype(np.int64)), torch.from_numpy(clicks.clicked)
        self._names = names

    def __len__(self) -> int:
        return len(self._clicked)

    def batch(self, index: np.ndarray) -> dict[str, torch.Tensor]:
        """Columns by name, the label among them."""
        rows = torch.from_numpy(index)
        return dict(zip(self._names, self._ids[rows].unbind(1))) | {LABEL: self._clicked[rows]}


def feature_map_of(names: list[str], work: Path) -> FeatureMap:
    """FuxiCTR's description of these fields."""
    found = FeatureMap("clicks", str(work))
    found.features = OrderedDict(
        (name, {"type": "categorical", "source": "", "vocab_size": CARDINALITY}) for name in names
    )
    found.labels, found.default_emb_dim = [LABEL], WIDTH
    found.num_fields = found.get_num_fields()
    found.set_column_index()
    return found


def main() -> None:
    """Train one epoch, score the test rows."""
    folder, out, options = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    torch.set_num_threads(1)
    torch.manual_seed(options["seed"])
    clicks = Clicks.load(folder / "train.npz")
    names = [f"field_{number}" for number in range(FIELDS)]
    train, test = Rows(clicks, names), Rows(Clicks.load(folder / "test.npz"), names)
    model = DeepFM(feature_map_of(names, out), out, options["learning_rate"], options["deviation"])
    model._max_gradient_norm = 10.0  # what `fit` sets by default
    steps = batches(len(train), options["batch_size"], options["seed"])
    model.train()
    cpu, clock = time.process_time(), time.perf_counter()
    for index in steps:
        model.train_step(train.batch(index))
    figures = {"cpu_seconds": time.process_time() - cpu, "seconds": time.perf_counter() - clock, "steps": len(steps)}
    model.eval()
    with torch.no_grad():
        found = [
            model(test.batch(np.arange(start, min(start + PREDICT_ROWS, len(test)))))["y_pred"].flatten()
            for start in range(0, len(test), PREDICT_ROWS)
        ]
    np.save(out / "scores.npy", torch.cat(found).numpy())
    (out / "figures.json").write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()

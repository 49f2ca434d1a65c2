"""Models that an evaluation compares: the paper's systems and the ablations of PRECTR-V2, as settings of `train`."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prectr.contracts.model_config import MODELS, ModelConfig
from prectr.core.errors import UsageError
from prectr.training.config import TrainConfig


@dataclass(frozen=True)
class Contestant:
    """One row of a table.

    Attributes:
        name: name of the directories of its bundles.
        label: name in tables and pictures.
        changes: settings of `train.model` that differ; all other settings are as configured, the same for all.
    """

    name: str
    label: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    def config(self, train: TrainConfig, seed: int) -> TrainConfig:
        """Settings of a training with one seed."""
        model = ModelConfig.model_validate(train.model.model_dump() | {"name": self.name} | dict(self.changes))
        return train.model_copy(update={"model": model, "seed": seed})


LABELS = {
    "position-only": "position only",
    "lr": "LR",
    "dnn": "DNN",
    "wide-deep": "Wide&Deep",
    "deepfm": "DeepFM",
    "xdeepfm": "xDeepFM",
    "din": "DIN",
    "sukd": "SuKD",
    "daian": "DAIAN (search)",
    "prectr": "PRECTR",
    "prectr-v2": "PRECTR-V2",
    "oracle": "oracle (truth)",
}
"""Labels of the rows of a table; other rows are labelled by their name."""

PAPER_MODELS = ("lr", "dnn", "wide-deep", "deepfm", "xdeepfm", "din", "sukd", "prectr", "prectr-v2")
"""Systems of the paper's results table, in its order. `daian`, a sibling system, is not in that table."""

_FULL = {"name": "prectr-v2"}
ABLATIONS = (
    Contestant("prectr", "PRECTR"),
    Contestant("no-mining", "V2 without cold-start mining", {**_FULL, "preference": False}),
    Contestant("no-debias", "V2 without exposure debias", {**_FULL, "debias": False}),
    Contestant("frozen", "V2, encoder not tuned with clicks", {**_FULL, "encoder": "frozen"}),
    Contestant("undistilled", "V2 without distilled encoder", {**_FULL, "encoder": "undistilled"}),
    Contestant("prectr-v2", "PRECTR-V2"),
)
"""The paper's ablations, and one of ours: a frozen encoder."""


def label_of(name: str) -> str:
    """Label of a row of a table."""
    return LABELS.get(name, next((ablation.label for ablation in ABLATIONS if ablation.name == name), name))


def chosen(names: Sequence[str]) -> list[Contestant]:
    """Look up contestants by the names of their models; `all` stands for the models of the paper.

    Raises:
        UsageError: a name is no model, or is there twice.
    """
    models = [model for name in names for model in (PAPER_MODELS if name == "all" else (name,))]
    for name in models:
        if name not in MODELS:
            near = difflib.get_close_matches(name, MODELS, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise UsageError(f"--models {name}: no such model{hint} Use all, {', '.join(MODELS)}.")
        if models.count(name) > 1:
            raise UsageError(f"--models: {name} is named twice; name each model once.")
    return [Contestant(name, LABELS[name]) for name in models]

"""Who stands in a table: the systems of the paper's results, and the ablations of PRECTR-V2, as settings of `train`."""

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
        name: of its bundles' directories.
        label: for people.
        changes: of `train.model`; everything else is as configured, the same for all.
    """

    name: str
    label: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    def config(self, train: TrainConfig, seed: int) -> TrainConfig:
        """How it is trained with one seed."""
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
"""What people call the rows of a table; other names speak for themselves."""

PAPER_MODELS = ("lr", "dnn", "wide-deep", "deepfm", "xdeepfm", "din", "sukd", "prectr", "prectr-v2")
"""The systems of the paper's results table, in its order; `daian` is a sibling system and not in it."""

_FULL = {"name": "prectr-v2"}
ABLATIONS = (
    Contestant("prectr", "PRECTR"),
    Contestant("no-mining", "V2 without cold-start mining", {**_FULL, "preference": False}),
    Contestant("no-debias", "V2 without exposure debias", {**_FULL, "debias": False}),
    Contestant("frozen", "V2, encoder not tuned with clicks", {**_FULL, "encoder": "frozen"}),
    Contestant("undistilled", "V2 without distilled encoder", {**_FULL, "encoder": "undistilled"}),
    Contestant("prectr-v2", "PRECTR-V2"),
)
"""The paper's ablations, and a frozen encoder, which is ours."""


def label_of(name: str) -> str:
    """What people call a row of a table."""
    return LABELS.get(name, next((one.label for one in ABLATIONS if one.name == name), name))


def chosen(names: Sequence[str]) -> list[Contestant]:
    """Contestants by the models' names; `all` stands for those of the paper.

    Raises:
        UsageError: no such model, or one is named twice.
    """
    wanted = [name for given in names for name in (PAPER_MODELS if given == "all" else (given,))]
    for name in wanted:
        if name not in MODELS:
            near = difflib.get_close_matches(name, MODELS, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise UsageError(f"--models {name}: no such model{hint} There are all, {', '.join(MODELS)}.")
        if wanted.count(name) > 1:
            raise UsageError(f"--models: {name} is named twice.")
    return [Contestant(name, LABELS[name]) for name in wanted]

"""What the quality benchmark trains, in groups, and what each is compared with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from prectr.configuration import assign_path
from prectr.training.config import TrainConfig


@dataclass(frozen=True)
class Variant:
    """One way to train; `train` None is not a ranker of ours (LightGBM, the truth)."""

    name: str
    what: str
    train: TrainConfig | None
    against: str | None = None
    world: str = "log"
    encoder: str = "encoder"


def _ranker(name: str, model: str, what: str, *settings: str, **options: Any) -> Variant:
    values: dict[str, Any] = {"model": {"name": model}}
    for setting in settings:
        key, _, value = setting.partition("=")
        assign_path(values, key.split("."), yaml.safe_load(value))
    return Variant(name, what, TrainConfig.model_validate(values), **options)


def _v2(name: str, what: str, *settings: str, **options: Any) -> Variant:
    return _ranker(name, "prectr-v2", what, *settings, **{"against": "prectr-v2", **options})


GROUPS: dict[str, tuple[Variant, ...]] = {
    "table": (
        Variant("oracle", "the truth's own click probability", None),
        Variant("lightgbm", "gradient boosting on the same point-in-time features", None, against="prectr-v2"),
        _ranker("wide-deep", "wide-deep", "Wide&Deep", against="prectr-v2"),
        _ranker("din", "din", "DIN", against="prectr-v2"),
        _ranker("prectr", "prectr", "PRECTR: frozen encoder, own history only", against="prectr-v2"),
        _ranker("prectr-v2", "prectr-v2", "PRECTR-V2, the defaults", against="prectr"),
    ),
    "ablations": (
        _v2("no-mining", "without cold-start preference mining", "model.preference=false"),
        _v2("no-debias", "without exposure debias", "model.debias=false"),
        _v2("frozen", "encoder not tuned with clicks", "model.encoder=frozen"),
    ),
}


def variants_of(groups: Sequence[str]) -> list[Variant]:
    """The variants of some groups; those of `table` come first, because others are compared with them."""
    names = ["table", *(group for group in groups if group != "table")]
    return [variant for group in names for variant in GROUPS[group]]

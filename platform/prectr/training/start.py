"""Warm starts: a ranker trained before goes on from its weights, on the days that came since."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from prectr.contracts.model_config import ModelConfig
from prectr.core.artifacts import require_artifact
from prectr.core.errors import PrectrError, UsageError
from prectr.features.spec import SPEC_FILE
from prectr.ranking.bundle import Bundle

WEIGHTS = "model.safetensors"


def require_start(start: Path, samples: Path, model: ModelConfig, days: Sequence[date]) -> None:
    """Refuse a warm start that would not be one, before Ray starts.

    Args:
        start: a bundle.
        samples: what will be trained on.
        model: what will be trained.
        days: the training days of the samples.

    Raises:
        UsageError: no bundle; it is of another model or feature specification; or it has learnt from all of the days.
    """
    bundle = Bundle.open(start)
    if bundle.model != model:
        raise UsageError(
            f"{start}: train.start_from is a {bundle.name} with other settings than train.model; start from a bundle "
            "of the same model."
        )
    if (start / SPEC_FILE).read_bytes() != (samples / SPEC_FILE).read_bytes():
        raise UsageError(
            f"{start}: was trained with another feature specification than that of {samples}; build the samples with "
            f"--set samples.specification_from={start}."
        )
    if not unseen_days(start, days):
        raise UsageError(
            f"{samples}: {start} has learnt from all of their training days; a warm start needs a day that came since."
        )


def unseen_days(start: Path, days: Sequence[date]) -> list[date]:
    """Those of the days that a bundle did not learn from: its validation day and later ones."""
    validated_on = require_artifact(start, "train")["last_day"]
    return [day for day in days if str(day) >= validated_on]


def load_weights(ranker: nn.Module, start: Path) -> None:
    """Give a ranker the weights of a bundle.

    Raises:
        PrectrError: they do not fit.
    """
    try:
        ranker.load_state_dict(load_file(start / WEIGHTS))
    except RuntimeError as error:
        said = str(error).splitlines()[-1].strip()
        raise PrectrError(f"{start / WEIGHTS}: these weights do not fit the ranker ({said}).") from None

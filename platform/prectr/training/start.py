"""Warm starts: training from the weights of an earlier bundle, on the days after its training days."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from prectr.contracts.model_config import ModelConfig
from prectr.core.artifacts import require_artifact
from prectr.core.errors import PrectrError, UsageError
from prectr.features.spec import SPEC_FILE, same_specification
from prectr.ranking.bundle import Bundle

WEIGHTS = "model.safetensors"


def require_start(start: Path, samples: Path, model: ModelConfig, days: Sequence[date]) -> None:
    """Check that a run can start from a bundle; called before Ray starts.

    Args:
        start: the bundle.
        samples: samples of the run.
        model: model of the run.
        days: training days of the samples.

    Raises:
        UsageError: `start` is no bundle, has another model or feature specification, or was trained on all days.
    """
    bundle = Bundle.open(start)
    if bundle.model != model:
        raise UsageError(
            f"{start}: train.start_from is a {bundle.name} with other settings than train.model; start from a bundle "
            "with the same model settings."
        )
    if not same_specification(start / SPEC_FILE, samples / SPEC_FILE):
        raise UsageError(
            f"{start}: was trained with another feature specification than {samples} has; build the samples with "
            f"--set samples.specification_from={start}."
        )
    if not unseen_days(start, days):
        raise UsageError(
            f"{samples}: {start} was trained on all of their training days; a warm start needs at least one later day."
        )


def unseen_days(start: Path, days: Sequence[date]) -> list[date]:
    """Days that a bundle was not trained on: its validation day and later ones."""
    validation_day = require_artifact(start, "train")["last_day"]
    return [day for day in days if str(day) >= validation_day]


def load_weights(ranker: nn.Module, start: Path) -> None:
    """Load the weights of a bundle into a ranker.

    Raises:
        PrectrError: the weights do not fit the ranker.
    """
    try:
        ranker.load_state_dict(load_file(start / WEIGHTS))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise PrectrError(f"{start / WEIGHTS}: these weights do not fit the ranker ({reason}).") from None

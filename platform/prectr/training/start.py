"""Checks before a training: warm starts from an earlier bundle, and metrics that are undefined on the validation day.

The checks are not part of the training loop, because users see a worker's output only with `-v`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl
from safetensors.torch import load_file
from torch import nn

from prectr.contracts.model_config import ModelConfig
from prectr.core.artifacts import require_artifact
from prectr.core.errors import PrectrError, UsageError, shorten
from prectr.features.load import sample_days, split_days
from prectr.features.spec import SPEC_FILE, same_specification
from prectr.ranking.bundle import WEIGHTS_FILE, Bundle


def require_start(start: Path, samples: Path, model: ModelConfig, days: Sequence[date]) -> None:
    """Check that a run can start from a bundle; called before Ray starts.

    Args:
        start: the bundle.
        samples: samples of the run.
        model: model of the run.
        days: training days of the samples.

    Raises:
        UsageError: `start` is no bundle, has another model or feature specification, or was trained on all days.
        PrectrError: a file of the bundle is missing or has changed.
    """
    bundle = Bundle.open(start)
    bundle.require_unchanged(WEIGHTS_FILE)
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
        ranker.load_state_dict(load_file(start / WEIGHTS_FILE))
    except RuntimeError as error:
        reason = shorten(str(error).splitlines()[-1])
        raise PrectrError(f"{start / WEIGHTS_FILE}: these weights do not fit the ranker ({reason}).") from None


@dataclass(frozen=True)
class Undefined:
    """Metrics that are undefined on the validation day, and the reason."""

    figures: tuple[str, ...]
    why: str
    """Reason, as a clause for messages."""


def undefined_figures(samples: Path) -> Undefined | None:
    """Metrics of `ranker_loop.validate` without the clicks and skips that they need; None if all are defined.

    Args:
        samples: artifact of `build-samples`.

    Raises:
        PrectrError: the samples hold fewer than three days.
    """
    day = split_days(sample_days(samples))[1]
    rows = pl.scan_parquet(samples / "rows" / f"date={day}" / "*.parquet", hive_partitioning=False)
    users = rows.group_by("user_id").agg(clicks=pl.col("clicked").any(), skips=pl.col("clicked").not_().any())
    clicks, skips, both = (
        users.select(pl.col("clicks").any(), pl.col("skips").any(), both=(pl.col("clicks") & pl.col("skips")).any())
        .collect()
        .row(0)
    )
    if not (clicks and skips):
        content = "holds no click" if not clicks else "holds clicks only"
        return Undefined(
            ("auc", "gauc", "auc_position_free"),
            f"the validation day {day} {content}, so its AUC and GAUC are undefined",
        )
    if not both:
        return Undefined(
            ("gauc",), f"no user both clicked and skipped on the validation day {day}, so its GAUC is undefined"
        )
    return None

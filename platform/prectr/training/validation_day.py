"""A check of the validation day before training: which metrics are undefined on it.

The check is not part of the training loop, because users see a worker's output only with `-v`.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from prectr.features.load import sample_days, split_days


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

"""Reading what was known at the end of the log a little at a time: single keys, single columns."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from prectr.core.artifacts import fingerprint, require_artifact
from prectr.core.errors import UsageError
from prectr.preferences.mined import Preferences
from prectr.preferences.smoothing import total_rates
from prectr.preferences.sums import LEVEL_NAMES, LevelSums, matrix


def require_mined_from(preferences: Path, **inputs: Path) -> None:
    """Refuse inputs that the artifact was not mined from.

    Args:
        preferences: a `mine-preferences` artifact.
        inputs: `tables`, `relevance`, or both.

    Raises:
        UsageError: one is another one, or changed since.
    """
    mined_from = require_artifact(preferences, "mine-preferences")["inputs"]
    for name, given in inputs.items():
        if mined_from[name] != fingerprint(given):
            raise UsageError(
                f"{preferences}: was mined from other {name} than {given}, or they changed since. Give those that it "
                "was mined from, or run `prectr mine-preferences` again."
            )


def rows(preferences: Preferences, table: str, **keys: str) -> pl.DataFrame:
    """Rows of a snapshot table whose key columns have these values; of sorted parts only their row groups are read."""
    wanted = [pl.col(name) == value for name, value in keys.items()]
    return _scan(preferences, table).filter(wanted).collect()


def columns(preferences: Preferences, table: str, names: Sequence[str]) -> pl.DataFrame:
    """Some columns of a whole snapshot table."""
    return _scan(preferences, table).select(names).collect()


def prior_strength(preferences: Preferences) -> np.ndarray:
    """[k] examined impressions of each level that the back-off of its rate weighs as much as, at the log's rates."""
    return np.asarray(preferences.model.level_prior_clicks / overall_rates(preferences))


def mean_prior_strength(preferences: Preferences) -> float:
    """`prior_strength`, weighted by how often each level was looked at."""
    return float(np.average(prior_strength(preferences), weights=_total(preferences).examined[0] + 1e-9))


def overall_rates(preferences: Preferences) -> np.ndarray:
    """[k] clicks per examined impression of the whole log by level: where the back-off ends."""
    return np.asarray(total_rates(_total(preferences))[0])


def _total(preferences: Preferences) -> LevelSums:
    return LevelSums.split(matrix(columns(preferences, "total", LEVEL_NAMES), LEVEL_NAMES))


def _scan(preferences: Preferences, table: str) -> pl.LazyFrame:
    return pl.scan_parquet(preferences.path / "snapshot" / table / "*.parquet", hive_partitioning=False)

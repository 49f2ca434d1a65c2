"""Reading a `mine-preferences` artifact: what was known of some keys before some days, or at the end of the log."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl

from prectr.core.artifacts import fingerprint, read_manifest, require_artifact
from prectr.core.errors import PrectrError, UsageError
from prectr.core.parquet import read_table
from prectr.preferences.config import PreferencesConfig
from prectr.preferences.fit import PreferenceModel
from prectr.preferences.smoothing import total_rates
from prectr.preferences.sums import LEVEL_NAMES, NAMES, LevelSums, matrix
from prectr.preferences.tolerance import LogLikelihoodTable, log_likelihood_table

KEYS = {
    "user": ["user_id"],
    "query": ["query"],
    "category": ["category"],
    "total": [],
    "item": ["item_id"],
    "pair": ["query", "item_id"],
}


_EARLIER = "mined by an earlier version of the project; run its stage again with --force."


@dataclass(frozen=True)
class Preferences:
    """An opened artifact; its tables are read when they are asked for, and as far as they are."""

    path: Path
    config: PreferencesConfig
    model: PreferenceModel
    query_category: pl.DataFrame
    days: tuple[date, ...]

    @classmethod
    def open(cls, path: Path) -> "Preferences":
        """Read what is small of the artifact.

        Raises:
            PrectrError: it is not a `mine-preferences` artifact.
        """
        manifest = read_manifest(path)
        if manifest is None or manifest["stage"] != "mine-preferences":
            raise PrectrError(f"{path}: no preferences here; make them with `prectr mine-preferences --out {path}`.")
        if "days" not in manifest:
            raise PrectrError(f"{path}: {_EARLIER}")
        days = sorted(date.fromisoformat(day) for of in manifest["days"].values() for day in of)
        return cls(
            path,
            PreferencesConfig.model_validate(manifest["config"]),
            PreferenceModel.load(path / "parameters.json"),
            pl.read_parquet(path / "query_category.parquet"),
            tuple(days),
        )

    @property
    def table(self) -> LogLikelihoodTable:
        """The fitted click curve."""
        return log_likelihood_table(self.model.click, self.model.examination.exponent)

    def before(self, kind: str, wanted: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray]:
        """What was known before some days.

        Args:
            kind: query, category, total, item or pair.
            wanted: its keys and `date`, distinct, [m] rows.

        Returns:
            the rows found in the order of `wanted`, null where nothing was known; and their sums, zero there.
        """
        keys = [*KEYS[kind], "date"]
        known = pl.scan_parquet(self.path / "before" / kind / "*.parquet", hive_partitioning=False)
        found = known.join(wanted.lazy(), on=keys, how="semi").collect(engine="streaming")
        rows = wanted.join(found, on=keys, how="left", maintain_order="left")
        return rows, np.nan_to_num(matrix(rows.select(pl.col(NAMES[kind]).fill_null(0.0)), NAMES[kind]))

    def behaviours_before(self, wanted: pl.DataFrame) -> pl.DataFrame:
        """S_q of some queries before some days (query, date, distinct): a row a behaviour, best first."""
        known = pl.scan_parquet(self.path / "before" / "behaviour" / "*.parquet", hive_partitioning=False)
        return known.join(wanted.lazy(), on=["query", "date"], how="semi", maintain_order="left").collect()

    def snapshot(self, kind: str) -> pl.DataFrame:
        """What is known on the morning after the log's last day.

        Raises:
            PrectrError: the artifact is of an earlier version, which had no such table.
        """
        if not (self.path / "snapshot" / kind).is_dir():
            raise PrectrError(f"{self.path}: {_EARLIER}")
        return read_table(self.path / "snapshot" / kind)

    def query_priors(self, queries: pl.Series) -> np.ndarray:
        """[m, G] tolerance prior of some distinct queries, by the category mostly shown for each."""
        named = queries.alias("query").to_frame().join(
            self.query_category, on="query", how="left", maintain_order="left"
        )  # fmt: skip
        return self.model.query_priors(named["category"].to_list())


@lru_cache(maxsize=1)
def opened(path: Path) -> Preferences:
    """The artifact, opened once a process: its tasks share it."""
    return Preferences.open(path)


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

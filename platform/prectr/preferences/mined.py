"""Readers of a `mine-preferences` artifact: sums of some keys before some days, and snapshots after the log's last day.

They read only the rows and columns that the caller names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from prectr.core.artifacts import fingerprint, require_artifact
from prectr.core.errors import UsageError
from prectr.core.parquet import read_table
from prectr.preferences.config import PreferencesConfig
from prectr.preferences.fit import PreferenceModel
from prectr.preferences.fold import fold, scan_days
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
FOLDED_LATER = ("category", "item", "pair")
"""Kinds with keys that a day may not show, but hand over with an unexposed candidate."""


@dataclass(frozen=True)
class Preferences:
    """An opened preferences artifact. The methods read its tables, or the rows of them that the caller names."""

    path: Path
    config: PreferencesConfig
    model: PreferenceModel
    query_category: pl.DataFrame
    days: tuple[date, ...]

    @classmethod
    def open(cls, path: Path) -> "Preferences":
        """Read the parameters, the query categories and the days of an artifact.

        Raises:
            UsageError: `path` holds no `mine-preferences` artifact, or one of another schema version.
        """
        manifest = require_artifact(path, "mine-preferences")
        days = sorted(date.fromisoformat(day) for names in manifest["days"].values() for day in names)
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

    def before(self, kind: str, key_days: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray]:
        """Read the sums of some keys before some days.

        Args:
            kind: query, category, total, item or pair.
            key_days: the kind's keys and `date`, distinct, [m] rows.

        Returns:
            the table's rows in the order of `key_days`, null where the table has none; and their sums [m, w], zero
            there. Rows of `FOLDED_LATER` that the table lacks are folded from the earlier days.
        """
        keys = [*KEYS[kind], "date"]
        table = pl.scan_parquet(self.path / "before" / kind / "*.parquet", hive_partitioning=False)
        stored = table.join(key_days.lazy(), on=keys, how="semi").collect(engine="streaming")
        if kind in FOLDED_LATER:
            absent = key_days.join(stored, on=keys, how="anti")
            stored = pl.concat([stored, self.folded_before(kind, absent).select(stored.columns)])
        rows = key_days.join(stored, on=keys, how="left", maintain_order="left")
        return rows, np.nan_to_num(matrix(rows.select(pl.col(NAMES[kind]).fill_null(0.0)), NAMES[kind]))

    def folded_before(self, kind: str, key_days: pl.DataFrame) -> pl.DataFrame:
        """Add up the sums of some keys before days that do not show them, from the partials of the earlier days.

        An unexposed candidate may have such keys. The sums are those that `before/` would hold, to the last bit.

        Args:
            kind: one of `FOLDED_LATER`.
            key_days: the kind's keys and `date`, distinct.

        Returns:
            keys, date and sums, a row for each of `key_days`.
        """
        keys, names = KEYS[kind], NAMES[kind]
        columns = [*keys, "date", *names]
        types = dict.fromkeys(keys, pl.String) | {"date": pl.Date} | dict.fromkeys(names, pl.Float64)
        folded = [pl.DataFrame(schema=types)]
        for (day,), wanted in key_days.partition_by("date", as_dict=True).items():
            earlier = [one for one in self.days if one < day]
            parts = [
                part.join(wanted.lazy(), on=keys, how="semi").select(columns)
                for part in scan_days(self.path / "days", kind, earlier)
            ]
            nothing = wanted.with_columns(pl.lit(0, pl.Int64).alias(name) for name in names).select(columns)
            sums = pl.concat([*pl.collect_all(parts), nothing])
            before = fold(sums, keys, names, [*earlier, day], self.config.half_life_days).before
            folded.append(before.filter(pl.col("date") == day).select(columns))
        return pl.concat(folded)

    def behaviours_before(self, query_days: pl.DataFrame) -> pl.DataFrame:
        """Read S_q of some queries before some days (distinct query and date): a row for each behaviour, best first."""
        table = pl.scan_parquet(self.path / "before" / "behaviour" / "*.parquet", hive_partitioning=False)
        return table.join(query_days.lazy(), on=["query", "date"], how="semi", maintain_order="left").collect()

    def snapshot(self, kind: str) -> pl.DataFrame:
        """Read the whole table of a kind, as of the morning after the log's last day."""
        return read_table(self.path / "snapshot" / kind)

    def query_priors(self, queries: pl.Series) -> np.ndarray:
        """Select the tolerance prior of distinct queries by the category most often shown for each, [m, G]."""
        named = queries.alias("query").to_frame().join(
            self.query_category, on="query", how="left", maintain_order="left"
        )  # fmt: skip
        return self.model.query_priors(named["category"].to_list())


def require_mined_from(preferences: Path, **inputs: Path) -> None:
    """Check that the artifact was mined from the given inputs.

    Args:
        preferences: a `mine-preferences` artifact.
        inputs: `tables`, `relevance`, or both.

    Raises:
        UsageError: the artifact was mined from another input, or the input changed since.
    """
    mined_from = require_artifact(preferences, "mine-preferences")["inputs"]
    for name, path in inputs.items():
        if mined_from[name] != fingerprint(path):
            raise UsageError(
                f"{preferences}: was mined from other {name} than {path}, or they changed since. Use the {name} that "
                "it was mined from, or run `prectr mine-preferences` again."
            )


def rows(preferences: Preferences, table: str, **keys: str) -> pl.DataFrame:
    """Read the rows of a snapshot table whose key columns have these values; other row groups are skipped."""
    conditions = [pl.col(name) == value for name, value in keys.items()]
    return _scan(preferences, table).filter(conditions).collect()


def columns(preferences: Preferences, table: str, names: Sequence[str]) -> pl.DataFrame:
    """Read some columns of a whole snapshot table."""
    return _scan(preferences, table).select(names).collect()


def prior_strength(preferences: Preferences) -> np.ndarray:
    """Examined impressions that weigh as much as the back-off of each level's rate, at the log's rates; [k]."""
    return np.asarray(preferences.model.level_prior_clicks / overall_rates(preferences))


def mean_prior_strength(preferences: Preferences) -> float:
    """Mean of `prior_strength` over levels, weighted by the examined impressions of each level."""
    return float(np.average(prior_strength(preferences), weights=_total(preferences).examined[0] + 1e-9))


def overall_rates(preferences: Preferences) -> np.ndarray:
    """Clicks per examined impression of the whole log by level, [k]: the last step of the back-off."""
    return np.asarray(total_rates(_total(preferences))[0])


def _total(preferences: Preferences) -> LevelSums:
    return LevelSums.split(matrix(columns(preferences, "total", LEVEL_NAMES), LEVEL_NAMES))


def _scan(preferences: Preferences, table: str) -> pl.LazyFrame:
    return pl.scan_parquet(preferences.path / "snapshot" / table / "*.parquet", hive_partitioning=False)

"""Comparison of mined tolerances with the true tolerances of a simulated log.

    estimate     definition
    posterior    the mined tolerance, from the log and the relevance artifact (old clicks fade)
    naive        mean relevance of clicked rows minus that of shown rows; 0 without a click
    ceiling      the posterior if everything but the key's own tolerance is known (`prectr.evaluation.ceiling`)

Each estimate gets a Spearman correlation with the truth. All three are compared on the same users or queries, grouped
by the size of their history: once for all of them, once for those with a click. The naive estimate is not defined
without a click; 0 stands for "as everyone". The preferences are as of the end of the log, so all its requests and
impressions count, and they count in full, even if mining lets them fade.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import spearmanr

from prectr.core import progress
from prectr.core.artifacts import require_artifact
from prectr.core.coding import find_codes
from prectr.core.errors import PrectrError
from prectr.core.parquet import read_table
from prectr.data.parts import Part, Slice
from prectr.data.tables import Tables, count_rows
from prectr.evaluation.ceiling import Ceiling
from prectr.evaluation.truth import Truth
from prectr.preferences import mined as snapshot
from prectr.preferences.partials import request_starts
from prectr.preferences.shown import ShownReader, ShownRows
from prectr.preferences.tolerance import LATTICE

ESTIMATES = ("posterior", "naive", "ceiling")
INTERVAL = "95 %, Fisher z with the standard error of Bonett and Wright (2000)"
_UNDEFINED: dict[str, float | None] = {"spearman": None, "low": None, "high": None}
LEAST_KEYS = 10
"""Fewest users or queries of a group that get a figure."""
USER_GROUPS = ((1, 3), (4, 9), (10, 29), (30, None))
"""Groups of users by earlier requests."""
QUERY_GROUPS = ((1, 99), (100, 299), (300, 999), (1_000, 9_999), (10_000, None))
"""Groups of queries by impressions."""


def check_against_truth(preferences: Path, relevance: Path, tables: Tables) -> dict[str, Any]:
    """Compare the tolerances of users and queries with the truth; returns the figures as a JSON object.

    Reads the log one day at a time. A log of another simulator gets no ceiling.

    Raises:
        UsageError: the log has no truth, or the preferences were not mined from these tables and this relevance.
        PrectrError: the truth belongs to another log.
    """
    require_artifact(preferences, "mine-preferences")
    require_artifact(relevance, "score-relevance")
    truth = Truth.open(tables)
    snapshot.require_mined_from(preferences, tables=tables.path, relevance=relevance)
    if truth.curve is None:
        progress.say(f"  no ceiling: {truth.folder} does not hold the click curve that `prectr simulate` writes")
    users, queries = _Side.of(truth.users, "user_id", truth), _Side.of(truth.queries, "query", truth)
    days = tables.days_with_rows("impressions")
    reader = ShownReader.open(tables, relevance)
    with progress.track("preferences check", total=sum(_rows(tables, day) for day in days)) as bar:
        for day in days:
            rows = reader.read(_whole_day(tables, day), ["request_id"])
            _add_rows(rows, reader, truth, day, users, queries)
            bar.advance(len(rows))
    return {
        "simulated": True,
        "interval": INTERVAL,
        "users": _figures(users, preferences, "requests", USER_GROUPS),
        "queries": _figures(queries, preferences, "impressions", QUERY_GROUPS),
    }


def agreement(estimate: np.ndarray, true: np.ndarray) -> dict[str, float | None]:
    """Spearman correlation of [n] estimates with the truth, and its interval; None values if it is not defined."""
    if len(true) < LEAST_KEYS or np.ptp(estimate) == 0 or np.ptp(true) == 0:
        return _UNDEFINED
    correlation = float(spearmanr(estimate, true).statistic)
    z = np.arctanh(np.clip(correlation, -1 + 1e-12, 1 - 1e-12))
    reach = 1.959964 * np.sqrt((1 + correlation**2 / 2) / (len(true) - 3))
    return {"spearman": correlation, "low": float(np.tanh(z - reach)), "high": float(np.tanh(z + reach))}


@dataclass(frozen=True)
class _Side:
    """Users or queries, with their true tolerances and their counts in the log; arrays are [K], in order of `keys`."""

    name: str
    keys: pl.Series
    true: np.ndarray
    ceiling: Ceiling | None
    requests: np.ndarray
    impressions: np.ndarray
    clicks: np.ndarray
    relevance_shown: np.ndarray
    """Sum of the relevance of shown rows."""
    relevance_clicked: np.ndarray
    """Sum of the relevance of clicked rows."""

    @classmethod
    def of(cls, tolerances: pl.DataFrame, name: str, truth: Truth) -> "_Side":
        true = tolerances["tolerance"].to_numpy().astype(np.float64)
        ceiling = None if truth.curve is None else Ceiling(true, truth.curve)
        return cls(name, tolerances[name], true, ceiling, *(np.zeros(len(true)) for _ in range(5)))

    def find(self, keys: pl.Series) -> np.ndarray:
        """Index of each of `keys` in `self.keys`.

        Raises:
            PrectrError: the truth lacks a key.
        """
        index = find_codes(keys, self.keys)
        if (index < 0).any():
            raise PrectrError(
                f"The truth lacks {(index < 0).sum():,} values of '{self.name}' in the log, for example "
                f"{keys.gather(np.flatnonzero(index < 0)[:1]).item()!r}; it belongs to another log."
            )
        return index

    def naive(self) -> np.ndarray:
        """Mean relevance of clicked rows minus that of shown rows; 0 without a click."""
        clicked = self.relevance_clicked / np.maximum(self.clicks, 1)
        return np.where(self.clicks > 0, clicked - self.relevance_shown / np.maximum(self.impressions, 1), 0.0)


def _add_rows(rows: ShownRows, reader: ShownReader, truth: Truth, day: date, users: _Side, queries: _Side) -> None:
    """Add the rows of a day to the counts and ceilings of both sides."""
    user = users.find(rows.user.keys)[rows.user.codes]
    query = queries.find(rows.query.keys)[rows.query.codes]
    mined_relevance = reader.index.expected[rows.place] / LATTICE
    is_first = request_starts(rows)
    for side, key in ((users, user), (queries, query)):
        keys = len(side.keys)
        side.requests[:] += np.bincount(key[is_first], minlength=keys)
        side.impressions[:] += np.bincount(key, minlength=keys)
        side.clicks[:] += np.bincount(key[rows.clicked], minlength=keys)
        side.relevance_shown[:] += np.bincount(key, weights=mined_relevance, minlength=keys)
        side.relevance_clicked[:] += np.bincount(
            key[rows.clicked], weights=mined_relevance[rows.clicked], minlength=keys
        )
    if users.ceiling is not None and queries.ceiling is not None:
        shown = truth.of_shown(day, rows.frame)
        relevance, chance = shown["r"].to_numpy(), (shown["p_exam"] * shown["attraction"]).to_numpy()
        users.ceiling.add(user, rows.clicked, relevance, queries.true[query], chance)
        queries.ceiling.add(query, rows.clicked, relevance, users.true[user], chance)


def _figures(
    side: _Side, preferences: Path, count_name: str, groups: tuple[tuple[int, int | None], ...]
) -> dict[str, Any]:
    """Figures of one side, grouped by the count named `count_name`."""
    seen = np.flatnonzero(side.impressions)
    mined = read_table(preferences / "snapshot" / side.name.removesuffix("_id")).select(side.name, "tolerance")
    index = find_codes(side.keys.gather(seen), mined[side.name])
    if (index < 0).any():
        raise PrectrError(
            f"{preferences}: lacks {(index < 0).sum():,} of the log's values of '{side.name}'; mine preferences again."
        )
    estimates = {"posterior": mined["tolerance"].to_numpy()[index], "naive": side.naive()[seen]}
    if side.ceiling is not None:
        estimates["ceiling"] = side.ceiling.means()[seen]
    count, clicks, true = getattr(side, count_name)[seen], side.clicks[seen], side.true[seen]

    def group_rows(population: np.ndarray) -> Iterator[dict[str, Any]]:
        for low, high in (*groups, (1, None)):
            group = population & (count >= low) & (count <= (np.inf if high is None else high))
            yield {
                count_name: "all" if low == 1 and high is None else f"{low}+" if high is None else f"{low}-{high}",
                "keys": int(group.sum()),
                "without_click": int((group & (clicks == 0)).sum()),
                **{
                    name: agreement(estimates[name][group], true[group]) if name in estimates else _UNDEFINED
                    for name in ESTIMATES
                },
            }

    return {
        "by": count_name,
        "all": list(group_rows(np.ones(len(seen), dtype=bool))),
        "with_a_click": list(group_rows(clicks > 0)),
    }


def _rows(tables: Tables, day: date) -> int:
    return sum(count_rows(file) for file in tables.day_files("impressions", day))


def _whole_day(tables: Tables, day: date) -> Part:
    files = tables.day_files("impressions", day)
    return Part(day, 0, tuple(Slice(file, 0, count_rows(file)) for file in files))

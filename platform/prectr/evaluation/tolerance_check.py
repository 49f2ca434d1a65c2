"""Mined tolerances against the true ones of a simulated log.

    Spearman with the truth of   what it knows
    posterior                    the log, the relevance artifact: what mining published (old clicks fade)
    naive                        mean relevance of clicked rows minus that of shown rows; 0 without a click
    ceiling                      everything but the key's own tolerance (`prectr.evaluation.ceiling`)

All three are compared on the same keys, by how much is known of them: once all keys, once those with a click. Without a
click the naive figure does not exist; 0, the guess "as everyone", lets the columns be compared on all keys. Mined is
what is known on the morning after the log, so all of its requests and impressions are earlier ones; they are counted
in full, faded or not.
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
"""Groups of fewer keys get no figure."""
USER_GROUPS = ((1, 3), (4, 9), (10, 29), (30, None))
"""By earlier requests."""
QUERY_GROUPS = ((1, 99), (100, 299), (300, 999), (1_000, 9_999), (10_000, None))
"""By impressions."""


def check_against_truth(preferences: Path, relevance: Path, tables: Tables) -> dict[str, Any]:
    """Compare users' and queries' tolerances with the truth; figures as a JSON object.

    Goes through the log a day at a time. Of a log that another simulator made there is no ceiling.

    Raises:
        UsageError: the log has no truth, or the preferences were not mined from these tables and this relevance.
        PrectrError: the truth is of another log.
    """
    require_artifact(preferences, "mine-preferences")
    require_artifact(relevance, "score-relevance")
    truth = Truth.open(tables)
    snapshot.require_mined_from(preferences, tables=tables.path, relevance=relevance)
    if truth.curve is None:
        progress.say(f"  no ceiling: {truth.folder} does not say the click curve of `prectr simulate`")
    users, queries = _Side.of(truth.users, "user_id", truth), _Side.of(truth.queries, "query", truth)
    days = tables.days_with_rows("impressions")
    reader = ShownReader.open(tables, relevance)
    with progress.track("preferences check", total=sum(_rows(tables, day) for day in days)) as bar:
        for day in days:
            rows = reader.read(_whole_day(tables, day), ["request_id"])
            _count_in(rows, reader, truth, day, users, queries)
            bar.advance(len(rows))
    return {
        "simulated": True,
        "interval": INTERVAL,
        "users": _figures(users, preferences, "requests", USER_GROUPS),
        "queries": _figures(queries, preferences, "impressions", QUERY_GROUPS),
    }


def agreement(estimate: np.ndarray, true: np.ndarray) -> dict[str, float | None]:
    """Spearman correlation of [n] estimates with the truth and its interval; None where it is not defined."""
    if len(true) < LEAST_KEYS or np.ptp(estimate) == 0 or np.ptp(true) == 0:
        return _UNDEFINED
    found = float(spearmanr(estimate, true).statistic)
    z = np.arctanh(np.clip(found, -1 + 1e-12, 1 - 1e-12))
    reach = 1.959964 * np.sqrt((1 + found**2 / 2) / (len(true) - 3))
    return {"spearman": found, "low": float(np.tanh(z - reach)), "high": float(np.tanh(z + reach))}


@dataclass(frozen=True)
class _Side:
    """Users, or queries, and what the log shows of them; arrays are [K] in the order of `keys`."""

    name: str
    keys: pl.Series
    true: np.ndarray
    ceiling: Ceiling | None
    requests: np.ndarray
    impressions: np.ndarray
    clicks: np.ndarray
    relevance_shown: np.ndarray
    """Sum over shown rows."""
    relevance_clicked: np.ndarray
    """Sum over clicked rows."""

    @classmethod
    def of(cls, known: pl.DataFrame, name: str, truth: Truth) -> "_Side":
        true = known["tolerance"].to_numpy().astype(np.float64)
        ceiling = None if truth.curve is None else Ceiling(true, truth.curve)
        return cls(name, known[name], true, ceiling, *(np.zeros(len(true)) for _ in range(5)))

    def find(self, keys: pl.Series) -> np.ndarray:
        """Place of each key among the true ones.

        Raises:
            PrectrError: the truth does not know one.
        """
        place = find_codes(keys, self.keys)
        if (place < 0).any():
            raise PrectrError(
                f"The truth does not know {(place < 0).sum():,} values of '{self.name}' in the log, for example "
                f"{keys.gather(np.flatnonzero(place < 0)[:1]).item()!r}; it is of another log."
            )
        return place

    def naive(self) -> np.ndarray:
        """Mean relevance of clicked rows minus that of shown rows; 0 without a click."""
        clicked = self.relevance_clicked / np.maximum(self.clicks, 1)
        return np.where(self.clicks > 0, clicked - self.relevance_shown / np.maximum(self.impressions, 1), 0.0)


def _count_in(rows: ShownRows, reader: ShownReader, truth: Truth, day: date, users: _Side, queries: _Side) -> None:
    user = users.find(rows.user.keys)[rows.user.codes]
    query = queries.find(rows.query.keys)[rows.query.codes]
    mined_relevance = reader.index.expected[rows.place] / LATTICE
    first = request_starts(rows)
    for side, key in ((users, user), (queries, query)):
        keys = len(side.keys)
        side.requests[:] += np.bincount(key[first], minlength=keys)
        side.impressions[:] += np.bincount(key, minlength=keys)
        side.clicks[:] += np.bincount(key[rows.clicked], minlength=keys)
        side.relevance_shown[:] += np.bincount(key, weights=mined_relevance, minlength=keys)
        side.relevance_clicked[:] += np.bincount(
            key[rows.clicked], weights=mined_relevance[rows.clicked], minlength=keys
        )
    if users.ceiling is not None and queries.ceiling is not None:
        known = truth.of_shown(day, rows.frame)
        relevance, chance = known["r"].to_numpy(), (known["p_exam"] * known["attraction"]).to_numpy()
        users.ceiling.add(user, rows.clicked, relevance, queries.true[query], chance)
        queries.ceiling.add(query, rows.clicked, relevance, users.true[user], chance)


def _figures(
    side: _Side, preferences: Path, counted: str, groups: tuple[tuple[int, int | None], ...]
) -> dict[str, Any]:
    seen = np.flatnonzero(side.impressions)
    mined = read_table(preferences / "snapshot" / side.name.removesuffix("_id")).select(side.name, "tolerance")
    place = find_codes(side.keys.gather(seen), mined[side.name])
    if (place < 0).any():
        raise PrectrError(f"{preferences}: lacks {(place < 0).sum():,} of the log's values of '{side.name}'.")
    estimates = {"posterior": mined["tolerance"].to_numpy()[place], "naive": side.naive()[seen]}
    if side.ceiling is not None:
        estimates["ceiling"] = side.ceiling.means()[seen]
    amount, clicks, true = getattr(side, counted)[seen], side.clicks[seen], side.true[seen]

    def rows(among: np.ndarray) -> Iterator[dict[str, Any]]:
        for low, high in (*groups, (1, None)):
            chosen = among & (amount >= low) & (amount <= (np.inf if high is None else high))
            yield {
                counted: "all" if low == 1 and high is None else f"{low}+" if high is None else f"{low}-{high}",
                "keys": int(chosen.sum()),
                "without_click": int((chosen & (clicks == 0)).sum()),
                **{
                    name: agreement(estimates[name][chosen], true[chosen]) if name in estimates else _UNDEFINED
                    for name in ESTIMATES
                },
            }

    return {
        "by": counted,
        "all": list(rows(np.ones(len(seen), dtype=bool))),
        "with_a_click": list(rows(clicks > 0)),
    }


def _rows(tables: Tables, day: date) -> int:
    return sum(count_rows(file) for file in tables.day_files("impressions", day))


def _whole_day(tables: Tables, day: date) -> Part:
    files = tables.day_files("impressions", day)
    return Part(day, 0, tuple(Slice(file, 0, count_rows(file)) for file in files))

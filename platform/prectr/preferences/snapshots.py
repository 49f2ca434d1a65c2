"""Folds of the days' partials, by range of keys, into the tables that later stages read.

    centres/{user,query}            keys, date, shift (lattice steps; users also have requests): uncorrected tolerances
                                    on the morning of each day that shows the key
    before/{query,category,total,item,pair}   keys, date, sums of the earlier days, for each day that shows the key
    before/behaviour                date, query and the columns of S_q, best first
    snapshot/...                    the same after the log's last day, with tolerances, rates and prices for reports

Each function is the work of one task: it reads a range of the sorted day partials and writes one part of each table.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from prectr.contracts.model_config import LEVELS
from prectr.core.parquet import read_table, write_part
from prectr.data.parts import KeyRange
from prectr.preferences import behaviours, counting, distinct_users
from prectr.preferences.counting import sum_by
from prectr.preferences.fit import PreferenceModel
from prectr.preferences.fold import Folded, fold, read_days
from prectr.preferences.smoothing import LevelRates, fit_prior_clicks, level_rates, smoothed_rates, total_rates
from prectr.preferences.sums import COUNT_NAMES, LEVEL_NAMES, USER_NAMES, LevelSums, columns, matrix, scale
from prectr.preferences.tolerance import GRID_SIZE, moments, on_lattice, posterior

GRID_NAMES = LEVEL_NAMES[:GRID_SIZE]
RATE_NAMES = tuple(f"rate_{level}" for level in range(LEVELS))
"""Smoothed click rates by level, at the first position."""
SHARE_NAMES = tuple(f"click_share_{level}" for level in range(LEVELS))


@dataclass(frozen=True)
class Folding:
    """Arguments that all folds of a run share."""

    out: Path
    """The artifact being built: folds read `days/` and write `centres/`, `before/` and `snapshot/`."""
    days: tuple[date, ...]
    model: PreferenceModel
    query_category: pl.DataFrame
    half_life: float | None
    behaviours_per_query: int

    def read(self, kind: str, key: str, keys: KeyRange) -> pl.DataFrame:
        """Read one kind of day partials in a range of keys."""
        return read_days(self.out / "days", kind, self.days, key, keys)

    def fold(self, kind: str, by: list[str], names: tuple[str, ...], keys: KeyRange) -> Folded:
        """Fold one kind of partials in a range of keys."""
        return fold(self.read(kind, by[0], keys), by, names, self.days, self.half_life)

    def tolerance(self, sums: np.ndarray, prior: np.ndarray) -> list[pl.Series]:
        """Compute columns of posterior mean and deviation from sums [m, >= G]."""
        mean, deviation = moments(posterior(sums[:, :GRID_SIZE], prior))
        return [pl.Series("tolerance", mean), pl.Series("tolerance_sd", deviation)]

    def query_priors(self, queries: pl.Series) -> tuple[pl.Series, np.ndarray]:
        """Look up category (null if unknown) and tolerance prior [m, G] of each query."""
        named = queries.alias("query").to_frame().join(
            self.query_category, on="query", how="left", maintain_order="left"
        )["category"]  # fmt: skip
        return named, self.model.query_priors(named.to_list())


def centres_of_users(keys: KeyRange, folding: Folding) -> None:
    """Write `centres/user` of a range of users."""
    before = folding.fold("plain_user", ["user_id"], USER_NAMES, keys).before
    sums = matrix(before, USER_NAMES)
    mean, _ = moments(posterior(sums[:, :GRID_SIZE], folding.model.user_prior))
    centres = before.select(
        "user_id",
        "date",
        pl.Series("shift", on_lattice(mean - folding.model.user_centre)),
        pl.Series("requests", sums[:, GRID_SIZE]),
    )
    write_part(folding.out / "centres" / "user", keys.number, centres.sort("date", "user_id"))


def centres_of_queries(keys: KeyRange, folding: Folding) -> None:
    """Write `centres/query` of a range of queries, and `snapshot/centre`, by which serving corrects users' clicks."""
    folded = folding.fold("plain_query", ["query"], GRID_NAMES, keys)

    def shifts(sums: pl.DataFrame, key: list[str]) -> pl.DataFrame:
        _, prior = folding.query_priors(sums["query"])
        mean, _ = moments(posterior(matrix(sums, GRID_NAMES), prior))
        return sums.select(*key, pl.Series("shift", on_lattice(mean - folding.model.query_centre)))

    before = shifts(folded.before, ["query", "date"]).sort("date", "query")
    write_part(folding.out / "centres" / "query", keys.number, before)
    write_part(folding.out / "snapshot" / "centre", keys.number, shifts(folded.after, ["query"]).sort("query"))


def fold_users(keys: KeyRange, folding: Folding) -> dict[str, int]:
    """Write `snapshot/user` of a range: sums, tolerance and deviation. Returns row counts by table, as all folds."""
    after = folding.fold("user", ["user_id"], USER_NAMES, keys).after
    after = after.with_columns(folding.tolerance(matrix(after, USER_NAMES), folding.model.user_prior))
    write_part(folding.out / "snapshot" / "user", keys.number, after)
    return {"user": after.height}


def fold_items(keys: KeyRange, folding: Folding) -> dict[str, int]:
    """Write `before/item` and `snapshot/item` of a range; returns row counts by table."""
    folded = folding.fold("item", ["item_id"], COUNT_NAMES, keys)
    write_part(folding.out / "before" / "item", keys.number, folded.before.sort("date", "item_id"))
    write_part(folding.out / "snapshot" / "item", keys.number, folded.after)
    return {"item": folded.after.height}


def fold_categories(folding: Folding) -> int:
    """Write `before/` and `snapshot/` of all categories and of the whole log; returns the number of categories."""
    everything = KeyRange(None, None, 0)
    days = folding.read("category", "category", everything)
    folded = fold(days, ["category"], LEVEL_NAMES, folding.days, folding.half_life)
    whole = fold(days.with_columns(pl.lit("").alias("total")), ["total"], LEVEL_NAMES, folding.days, folding.half_life)
    write_part(folding.out / "before" / "category", 0, folded.before.sort("date", "category"))
    write_part(folding.out / "before" / "total", 0, whole.before.drop("total").sort("date"))

    prices_clicked = folding.read("price", "key", everything).filter(pl.col("of") == "category").drop("of")
    seen = folding.read("seen_category", "key", everything)
    total, after = (matrix(part.after, LEVEL_NAMES) for part in (whole, folded))
    overall = LevelSums.split(total)
    rates = total_rates(overall)
    for name, table, sums, key in (
        ("total", whole.after, total, pl.lit("")),
        ("category", folded.after, after, pl.col("key")),
    ):
        above = np.repeat(rates, len(sums), axis=0)
        readable = table.with_columns(
            *folding.tolerance(sums, folding.model.query_prior),
            *_readable_rates(level_rates(LevelSums.split(sums), above, folding.model.level_prior_clicks)),
        )
        price = _price_quantiles(folding, prices_clicked.with_columns(key.alias("key")))
        users = _users_in_all(distinct_users.counts_before(seen.with_columns(key.alias("key"))))
        for part in (price, users):
            readable = readable.join(part.rename({"key": name}), on=name, how="left", maintain_order="left")
        write_part(folding.out / "snapshot" / name, 0, readable)
    return folded.after.height


def _readable_rates(smoothed: LevelRates) -> list[pl.Series]:
    """Convert smoothed rates to the columns RATE_NAMES and SHARE_NAMES."""
    return [*columns(smoothed.rate, RATE_NAMES), *columns(smoothed.click_share, SHARE_NAMES)]


def _users_in_all(counts: pl.DataFrame) -> pl.DataFrame:
    """Select key and users after the last day from the result of `counts_before`."""
    return counts.filter(pl.col("date").is_null()).drop("date")


def fitted_prior_clicks(folding: Folding) -> np.ndarray:
    """Fit `level_prior_clicks` [k] on the queries of the folding's days."""
    names = LEVEL_NAMES[GRID_SIZE:]
    partials = [
        pl.scan_parquet(folding.out / "days" / f"date={day}" / "query" / "*.parquet", hive_partitioning=False)
        for day in folding.days
    ]
    queries = pl.concat(partials).group_by("query").agg(pl.col(names).sum()).sort("query").collect(engine="streaming")
    categories, _ = folding.query_priors(queries["query"])
    sums = np.concatenate([np.zeros((queries.height, GRID_SIZE)), matrix(queries, names) * scale(names)], axis=1)
    _, category = np.unique(categories.fill_null("").to_numpy(), return_inverse=True)
    by_category = LevelSums.split(sum_by(category, sums))
    total = total_rates(LevelSums.split(sums.sum(axis=0, keepdims=True)))
    strengths = fit_prior_clicks(by_category, np.broadcast_to(total, by_category.clicks.shape))
    category_rates = smoothed_rates(by_category, total, strengths)
    return fit_prior_clicks(LevelSums.split(sums), category_rates[category])


def fold_queries(keys: KeyRange, folding: Folding) -> dict[str, int]:
    """Write `before/` and `snapshot/` of the queries, pairs and behaviours in a range; returns row counts by table."""
    folded = folding.fold("query", ["query"], LEVEL_NAMES, keys)
    users = distinct_users.counts_before(folding.read("seen_query", "key", keys)).rename({"key": "query"})
    before = folded.before.join(users, on=["query", "date"], how="left", maintain_order="left")
    before = before.with_columns(pl.col("users").fill_null(0.0))
    write_part(folding.out / "before" / "query", keys.number, before.sort("date", "query"))
    after = folded.after.join(_users_in_all(users), on="query", how="left", maintain_order="left")
    write_part(folding.out / "snapshot" / "query", keys.number, _readable_queries(after, keys, folding))

    pairs = folding.fold("pair", ["query", "item_id"], COUNT_NAMES, keys)
    write_part(folding.out / "before" / "pair", keys.number, pairs.before.sort("date", "query", "item_id"))
    write_part(folding.out / "snapshot" / "pair", keys.number, pairs.after)
    return {
        "query": after.height,
        "pair": pairs.after.height,
        "behaviour": _fold_behaviours(keys, folding),
    }


def _readable_queries(after: pl.DataFrame, keys: KeyRange, folding: Folding) -> pl.DataFrame:
    """Add category, tolerance, smoothed rates and click shares by level, and price quantiles to the queries' sums."""
    total = LevelSums.split(matrix(_snapshot(folding, "total"), LEVEL_NAMES))
    categories, prior = folding.query_priors(after["query"])
    by_category = _snapshot(folding, "category").select("category", *RATE_NAMES)
    above = categories.alias("category").to_frame().join(by_category, on="category", how="left", maintain_order="left")
    unknown = above[RATE_NAMES[0]].is_null().to_numpy()[:, None]
    parent_rates = np.where(unknown, total_rates(total), matrix(above, RATE_NAMES))
    sums = matrix(after, LEVEL_NAMES)
    readable = after.with_columns(
        categories.alias("category"),
        *folding.tolerance(sums, prior),
        *_readable_rates(level_rates(LevelSums.split(sums), parent_rates, folding.model.level_prior_clicks)),
    )
    clicked = folding.read("price", "key", keys).filter(pl.col("of") == "query").drop("of")
    price = _price_quantiles(folding, clicked).rename({"key": "query"})
    return readable.join(price, on="query", how="left", maintain_order="left")


def _price_quantiles(folding: Folding, histogram: pl.DataFrame) -> pl.DataFrame:
    """Compute quantiles of clicked prices by key; the days' histograms decay like all sums."""
    if folding.half_life is not None:
        age = (pl.lit(folding.days[-1]) - pl.col("date")).dt.total_days() + 1
        histogram = histogram.with_columns(pl.col("clicks") * (-age / folding.half_life * np.log(2.0)).exp())
    ordered = histogram.sort("key", "bin", "date")
    merged = ordered.group_by("key", "bin", maintain_order=True).agg(pl.col("clicks").sum())
    return counting.quantiles(merged)


def _fold_behaviours(keys: KeyRange, folding: Folding) -> int:
    """Write `before/behaviour` and `snapshot/behaviour` of a range; returns the snapshot's rows."""
    days = folding.read("behaviour", "query", keys).partition_by("date", as_dict=True, include_key=False)

    def in_order() -> Iterator[tuple[date, pl.DataFrame]]:
        for day in folding.days:
            if (day,) in days:
                yield day, days[(day,)]

    limit = folding.behaviours_per_query
    before: list[pl.DataFrame] = []
    after = 0
    for day, lists in behaviours.states(in_order(), limit):
        if day is None:
            write_part(folding.out / "snapshot" / "behaviour", keys.number, lists)
            after = lists.height
        dated = lists.with_columns(pl.lit(day, dtype=pl.Date).alias("date"))
        before.append(dated if day is not None else dated.clear())
    write_part(folding.out / "before" / "behaviour", keys.number, pl.concat(before))
    return after


def _snapshot(folding: Folding, table: str) -> pl.DataFrame:
    return read_table(folding.out / "snapshot" / table)

"""Input of an experiment: reads exposures and assignments and sums the exposures by user and day.

exposures    columns user_id, ts, clicked and optionally purchased, price, request_id, item_id, query: the canonical
             `impressions`, as a file or a directory of files that `prectr validate` reads. A directory of canonical
             tables stands for its impressions, the exposure log of `serve` for the impressions in its events
assignment   columns user_id, variant and optionally ts, the time of assignment, in such files

With request_id and item_id, an item counts once in its request, as in `prectr validate`. Rows and clocks are checked as
there: bad rows are counted and set aside, and too many are refused.

A row counts for the variant of its user from the time of assignment. All assigned users count, also users without
exposures. CUPED uses the rows from before the start of the experiment. `Experiment.counts` reports all rows and users
that do not count.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from prectr.contracts.schema import WANTED_TYPE, Column, Table
from prectr.core import progress
from prectr.core.artifacts import read_manifest
from prectr.core.errors import PrectrError, UsageError, listed, quoted
from prectr.data.clocks import far_days, without_far_days
from prectr.data.config import ValidateConfig
from prectr.data.exposure_log import impressions, is_exposure_log
from prectr.data.reading.bad_rows import FAULT, FILE, ROW, BadRows
from prectr.data.reading.files import ENDINGS, find_files
from prectr.data.reading.reader import Reader
from prectr.data.reading.values import null_id
from prectr.data.requests import settle
from prectr.data.spill import Spill, units_of
from prectr.evaluation.experiments.config import ExperimentConfig
from prectr.evaluation.experiments.measures import MEASURES, SUMS, Measure

_COLUMNS = (
    Column("user_id", "string"),
    Column("ts", "timestamp"),
    Column("clicked", "bool"),
    Column("request_id", "string", required=False),
    Column("item_id", "string", required=False),
    Column("query", "string", required=False),
    Column("purchased", "bool", required=False),
    Column("price", "float", required=False),
)
EXPOSURES = Table("exposures", _COLUMNS, key=("user_id", "request_id", "item_id"))
BEFORE = Table("exposures before the start", _COLUMNS, key=EXPOSURES.key)
ASSIGNMENT = Table(
    "assignment",
    (Column("user_id", "string"), Column("variant", "string"), Column("ts", "timestamp", required=False)),
    key=("user_id",),
)
COUNTS = (
    "rows_counted",
    "rows_without_assignment",
    "users_without_assignment",
    "rows_before_their_users_assignment",
    "purchases_without_price",
    "rows_with_unknown_purchase",
    "repeated_rows",
)
"""Counts of exposures that the report shows."""
OPTIONAL_IDS = ("request_id", "item_id")
"""Ids of exposures without which a row still counts."""
HINT = "Correct them, or raise validation.max_bad_share."


@dataclass(frozen=True)
class Experiment:
    """Users of an experiment, numbered 0..n-1, and their sums by day.

    Attributes:
        variants: names of the variants, the control first.
        variant: int [n], number of the user's variant.
        entered: int [n], number of the day on which the user was assigned; 0 if not known.
        days: dates from the first to the last day of the experiment.
        measures: the measures to report.
        user: int [m], user of each row of `sums`; there is one row per user and day.
        day: int [m], number of the day of each row of `sums`, ascending.
        sums: float [m] by name (`SUMS`).
        before: float [n] by name, sums from before the experiment; None without such rows.
        counts: number of counted rows, and of rows and users that do not count, by reason.
        simulated: whether a manifest near the exposures marks them as simulated.
    """

    variants: list[str]
    variant: np.ndarray
    entered: np.ndarray
    days: list[date]
    measures: list[Measure]
    user: np.ndarray
    day: np.ndarray
    sums: dict[str, np.ndarray]
    before: dict[str, np.ndarray] | None
    counts: dict[str, int]
    simulated: bool

    def until(self, day: int) -> dict[str, np.ndarray]:
        """Sums of each user over the days 0..day, [n] by name."""
        rows = slice(0, int(np.searchsorted(self.day, day, side="right")))
        return {
            name: np.bincount(self.user[rows], weights=values[rows], minlength=len(self.variant))
            for name, values in self.sums.items()
        }


def read_experiment(
    exposures: Path,
    assignment: Path,
    before: Path | None,
    config: ExperimentConfig,
    validation: ValidateConfig | None = None,
    quarantine: Path | None = None,
) -> Experiment:
    """Read and check the input of an experiment.

    Args:
        exposures: file or directory of exposures, see the heading of this module.
        assignment: file or directory of assignments, see the heading of this module.
        before: rows from before the experiment, in the form of `exposures`; later rows are left out.
        config: control, shares, start, measures and limits.
        validation: rules and limits for rows; default: those of `prectr validate`.
        quarantine: Parquet file for bad rows; None: they are only counted.

    Raises:
        UsageError: a path is missing or holds no table, a column is missing, the variants are not those of the
            configuration, or the configuration requires CUPED and there are no earlier rows.
        PrectrError: too many rows are bad, values are impossible, users are in several variants, or no row counts.
    """
    validation = validation or ValidateConfig()
    with TemporaryDirectory(prefix="prectr-experiment-") as folder, BadRows(quarantine) as bad:
        reader = Reader(bad, validation)
        users, crossed = _read_assignment(assignment, config, reader)
        variants = _variants(assignment, users["variant"].unique().sort().to_list(), config)
        users = users.filter(pl.col("variant").is_in(variants)).sort("user_id").with_row_index("user")
        log = _Exposures(exposures, EXPOSURES, reader, Path(folder))
        measures = _choose_measures(exposures, log.columns, config)
        start = _start(config, users, log.earliest)
        by_user = users.select("user_id", "user", assigned="ts")
        counted = log.sums(by_user, start, measures, config)
        past = counted.past
        counts = dict(counted.counts) | {"users_in_several_variants": crossed}
        if before is not None:
            earlier = _Exposures(before, BEFORE, reader, Path(folder))
            lacking = [name for name in log.columns if name in _needed(measures) and name not in earlier.columns]
            if lacking:
                raise UsageError(f"{before}: lacks {', '.join(lacking)}, which {exposures} has.")
            past = earlier.sums(by_user, start, measures, config).past
        counts["bad_rows"] = bad.count
    if not counts["rows_counted"]:
        raise PrectrError(
            f"{exposures}: no row counts: none is of an assigned user at or after {start:%Y-%m-%d %H:%M} UTC. Check "
            "experiment.start and the user ids of both files."
        )
    daily = counted.daily
    counts["users_without_exposure"] = users.height - daily["user"].n_unique()
    first, last = daily["date"][0], daily["date"][-1]
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    entered = (users["ts"].dt.date() - first).dt.total_days().fill_null(0).clip(0, len(days) - 1)
    uses_past = config.cuped is not False and past.height > 0
    if config.cuped and not past.height:
        raise UsageError(
            f"{before or exposures}: no row of an assigned user from before {start:%Y-%m-%d %H:%M} UTC, but "
            "experiment.cuped=true needs such rows. Give earlier impressions with --before, or set experiment.start or "
            "experiment.cuped=false."
        )
    return Experiment(
        variants=variants,
        variant=users["variant"].replace_strict({name: code for code, name in enumerate(variants)}).to_numpy(),
        entered=entered.to_numpy(),
        days=days,
        measures=measures,
        user=daily["user"].to_numpy(),
        day=(daily["date"] - first).dt.total_days().to_numpy(),
        sums={name: daily[name].to_numpy() for name in SUMS},
        before=_sums_of_all_users(past, users.height) if uses_past else None,
        counts=counts,
        simulated=_is_simulated(exposures),
    )


@dataclass(frozen=True)
class _Sums:
    """Sums of exposures: by day and user, by user from before the start, and counts of rows and users."""

    daily: pl.DataFrame
    past: pl.DataFrame
    counts: dict[str, int]


class _Exposures:
    """Exposures, read once and cut by user, so that they need not fit into memory.

    Attributes:
        columns: names of the columns that some file has.
        earliest: time of the earliest row that no wrong clock made; None without rows.
    """

    def __init__(self, path: Path, table: Table, reader: Reader, folder: Path) -> None:
        self._path, self._table, self._reader = path, table, reader
        self._spill = Spill(folder / table.name, "user_id")
        days: Counter[date] = Counter()
        first: dict[date, datetime] = {}
        self.columns, frames = _open(path, table, reader)
        for frame in frames:
            self._spill.add(frame)
            by_day = frame.group_by(pl.col("ts").dt.date().alias("day")).agg(pl.len(), pl.col("ts").min())
            for day, rows, ts in by_day.iter_rows():
                days[day] += rows
                first[day] = min(ts, first.get(day, ts))
        reader.bad.require_share(table.name, reader.config.max_bad_share, HINT)
        self._far = far_days(days, reader.config)
        self.earliest = min((ts for day, ts in first.items() if day not in self._far), default=None)

    def sums(self, users: pl.DataFrame, start: datetime, measures: list[Measure], config: ExperimentConfig) -> _Sums:
        """Sum the exposures of the users.

        Args:
            users: columns user_id, user (number), assigned (time, may be null).
            start: start of the experiment.
            measures: the measures to report.
            config: limits.

        Raises:
            PrectrError: too many rows are bad, or purchases lack a price or have an impossible one.
        """
        units = units_of(self._spill.rows)
        parts = [self._of_unit(number, units, users, start, measures) for number in range(units)]
        self._spill.close()
        name = self._table.name
        self._reader.bad.require_share(name, self._reader.config.max_bad_share, HINT)
        found = [part for part in parts if part is not None]
        if not found:
            raise PrectrError(f"{self._path}: the exposures hold no rows; give exposures of the experiment.")
        counts: Counter[str] = Counter()
        for part in found:
            counts.update(part.counts)
        _check_prices(self._path, counts, measures, config)
        counts["repeated_rows"] = sum(self._reader.bad.merged.get(name, Counter()).values())
        shown = {key: counts[key] for key in COUNTS}
        daily = pl.concat([part.daily for part in found]).sort("date", "user")
        return _Sums(daily, pl.concat([part.past for part in found]).sort("user"), shown)

    def _of_unit(
        self, number: int, units: int, users: pl.DataFrame, start: datetime, measures: list[Measure]
    ) -> _Sums | None:
        rows = self._spill.unit(number, units)
        if rows is None:
            return None
        rows = without_far_days(rows, self._far, self._table.name, self._reader.bad).drop(FILE, ROW, FAULT)
        if not rows.height:
            return None
        rows = self._without_repeats(rows)
        unknown = rows["purchased"].null_count() if "purchased" in rows.columns else 0
        rows = rows.with_columns(pl.col("purchased").fill_null(False)) if "purchased" in rows.columns else rows
        joined = rows.join(users, on="user_id", how="left").sort("user_id", "ts", maintain_order=True)
        is_counted = (pl.col("ts") >= start) & (pl.col("ts") >= pl.col("assigned").fill_null(start))
        is_earlier = pl.col("ts") < start
        is_unassigned = pl.col("user").is_null()
        bought = pl.col("purchased") if "purchased" in rows.columns else pl.lit(False)
        price = pl.col("price") if "price" in rows.columns else pl.lit(None, pl.Float64)
        counts = joined.select(
            rows_without_assignment=(is_unassigned & ~is_earlier).sum(),
            users_without_assignment=pl.col("user_id").filter(is_unassigned & ~is_earlier).n_unique(),
            rows_before_their_users_assignment=(~is_unassigned & ~is_earlier & ~is_counted).sum(),
            rows_counted=(~is_unassigned & is_counted).sum(),
            orders=bought.sum(),
            purchases_without_price=(bought & price.is_null()).sum(),
            impossible=(bought & ~(price.is_finite() & (price >= 0))).sum(),
            rows_with_unknown_purchase=pl.lit(unknown),
        ).row(0, named=True)
        of_day = joined.filter(~is_unassigned & is_counted).group_by("user", pl.col("ts").dt.date().alias("date"))
        of_past = joined.filter(~is_unassigned & is_earlier).group_by("user")
        sums = _sums(rows.columns, measures)
        return _Sums(of_day.agg(sums), of_past.agg(sums), {key: int(value or 0) for key, value in counts.items()})

    def _without_repeats(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Each item of a request once; rows without a request or an item stay as they are."""
        if not {"request_id", "item_id"} <= set(rows.columns):
            return rows
        name = self._table.name
        keyed = pl.col("request_id").is_not_null() & pl.col("item_id").is_not_null()
        query = pl.col("query").fill_null("") if "query" in rows.columns else pl.lit("")
        others = rows.filter(~keyed)
        rows = rows.filter(keyed).with_columns(query.alias("query"))
        if not rows.height:
            return others
        settled = settle({name: rows}, self._reader.config.request_minutes)
        for reason, count in settled.merged[name].items():
            self._reader.bad.merge(name, reason, count)
        return pl.concat([settled.tables[name], others], how="diagonal_relaxed")


def _open(path: Path, table: Table, reader: Reader) -> tuple[list[str], Iterator[pl.DataFrame]]:
    """Names of the columns of a table, and its good rows in chunks; bad ones go to the quarantine.

    Raises:
        UsageError: the path is missing or holds no table, or no file has a required column.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or directory.")
    if table != ASSIGNMENT and is_exposure_log(path):
        frame = impressions(path).collect()
        reader.bad.rows[table.name] += frame.height
        marked = frame.with_columns(
            pl.lit(str(path)).alias(FILE), pl.int_range(pl.len()).alias(ROW), pl.lit(None, pl.String).alias(FAULT)
        )
        return frame.columns, iter([marked] if frame.height else [])
    found = find_files(path / "impressions" if (path / "impressions").is_dir() else path)
    files = found.tables.get("", [])
    if found.not_read:
        odd = listed([str(file.relative_to(path.parent)) for file in found.not_read])
        progress.say(f"  {path}: not read: {len(found.not_read):,} files of other kinds: {odd}")
    if not files:
        raise UsageError(f"{path}: give a file that ends with {ENDINGS}, or a directory of such files.")
    names = [column.name for column in table.columns]
    present = {name for file, layout in files for name in reader.names(file, layout)}
    missing = [name for name in table.required_names if name not in present]
    if present and missing:
        kinds = {column.name: WANTED_TYPE[column.kind] for column in table.columns}
        described = ", ".join(f"{name} ({kinds[name]})" for name in missing)
        raise UsageError(f"{path}: lacks {described}; it has {listed(sorted(present))}.")

    frames = (
        rows.with_columns(null_id(name, reader.config.null_ids) for name in OPTIONAL_IDS if name in rows.columns)
        for rows in reader.good_rows(files, table)
    )
    return [name for name in names if name in present], frames


def _needed(measures: list[Measure]) -> set[str]:
    """Columns that the measures of the exposures need."""
    return {measure.needs for measure in measures if measure.needs is not None}


def _choose_measures(path: Path, columns: list[str], config: ExperimentConfig) -> list[Measure]:
    """The configured measures, else all for which there are columns; an amount also needs purchases."""
    available = {None, *columns}
    allowed = [
        measure
        for measure in MEASURES
        if measure.needs in available and (measure.above != "amount" or "purchased" in available)
    ]
    if config.measures is None:
        return allowed
    lacking = [name for name in config.measures if name not in {measure.name for measure in allowed}]
    if lacking:
        raise UsageError(
            f"{path}: experiment.measures names {', '.join(lacking)}, which need the columns purchased (and price). "
            "Add the columns, or leave these measures out."
        )
    return [measure for measure in allowed if measure.name in config.measures]


def _check_prices(path: Path, counts: Mapping[str, int], measures: list[Measure], config: ExperimentConfig) -> None:
    """Refuse purchases with an impossible price, and too many without one."""
    if not any(measure.above == "amount" for measure in measures):
        return
    orders, unpriced, impossible = (counts[name] for name in ("orders", "purchases_without_price", "impossible"))
    without = "or leave GMV out with --set 'experiment.measures=[ctr, orders, conversion]'."
    if impossible:
        raise PrectrError(
            f"{path}: {impossible:,} purchased rows have a price that is negative or not a number. Mend them, {without}"
        )
    if unpriced > config.max_unpriced_share * orders:
        raise PrectrError(
            f"{path}: {unpriced:,} of {orders:,} purchased rows have no price. Fill them in, raise "
            f"experiment.max_unpriced_share ({config.max_unpriced_share:g}) to count them as 0, {without}"
        )


def _read_assignment(path: Path, config: ExperimentConfig, reader: Reader) -> tuple[pl.DataFrame, int]:
    """Columns user_id, variant, ts (may be null) of the users of one variant; and the number of users of several."""
    columns, frames = _open(path, ASSIGNMENT, reader)
    read = list(frames)
    reader.bad.require_share(ASSIGNMENT.name, reader.config.max_bad_share, HINT)
    if not read:
        raise PrectrError(f"{path}: the assignment has no rows; give the variant of each user.")
    rows = pl.concat(read, how="diagonal_relaxed")
    if "ts" in columns:
        days = Counter(dict(rows.drop_nulls("ts").group_by(pl.col("ts").dt.date()).len().iter_rows()))
        rows = without_far_days(rows, far_days(days, reader.config), ASSIGNMENT.name, reader.bad)
        reader.bad.require_share(ASSIGNMENT.name, reader.config.max_bad_share, HINT)
    moment = pl.col("ts").min() if "ts" in columns else pl.lit(None, pl.Datetime("us", "UTC"))
    users = rows.group_by("user_id").agg(
        pl.col("variant").first(), moment.alias("ts"), pl.col("variant").n_unique().alias("variants")
    )
    crossed = int((users["variants"] > 1).sum())
    if crossed > config.max_crossed_share * users.height:
        example = users.filter(pl.col("variants") > 1)["user_id"].sort()[0]
        raise PrectrError(
            f"{path}: {crossed:,} of {users.height:,} users are in several variants, such as {quoted(example)}. A user "
            "must see one variant only; mend the assignment, or raise experiment.max_crossed_share "
            f"({config.max_crossed_share:g}) to leave them out."
        )
    return users.filter(pl.col("variants") == 1).drop("variants"), crossed


def _variants(path: Path, names: list[str], config: ExperimentConfig) -> list[str]:
    """Check the variants; returns their names, the control first."""
    if config.control not in names:
        raise UsageError(
            f"{path}: no user is in the control {config.control!r}; the variants are {', '.join(names) or 'none'}. "
            "Name one of them with --control."
        )
    if len(names) == 1:
        raise UsageError(f"{path}: all users are in {names[0]!r}; an experiment needs a second variant.")
    unknown = [name for name in names if name not in config.shares]
    absent = [name for name in config.shares if name not in names]
    if config.shares and unknown:
        raise UsageError(
            f"{path}: variant {unknown[0]!r} is not in experiment.shares ({', '.join(config.shares)}); add its share."
        )
    if absent:
        raise UsageError(
            f"{path}: experiment.shares has {absent[0]!r}, but the only variants are {', '.join(names)}; remove it."
        )
    return [config.control, *(name for name in names if name != config.control)]


def _start(config: ExperimentConfig, users: pl.DataFrame, earliest_row: datetime | None) -> datetime:
    if config.start is not None:
        return config.start.replace(tzinfo=config.start.tzinfo or UTC).astimezone(UTC)
    earliest = users["ts"].min() or earliest_row
    if not isinstance(earliest, datetime):
        raise PrectrError("The exposures hold no rows; give exposures of the experiment.")
    return earliest


def _sums(columns: list[str], measures: list[Measure]) -> list[pl.Expr]:
    bought = pl.col("purchased") if "purchased" in columns else pl.lit(False)
    with_amount = any(measure.above == "amount" for measure in measures)
    # Sorted, because a sum's last digit depends on the order of the rows, which varies with the threads.
    amount = pl.col("price").filter(bought).sort().sum() if with_amount and "price" in columns else pl.lit(0.0)
    orders = bought.sum() if "purchased" in columns else pl.lit(0)
    sums = {"impressions": pl.len(), "clicks": pl.col("clicked").sum(), "orders": orders, "amount": amount}
    return [column.cast(pl.Float64).alias(name) for name, column in sums.items()]


def _sums_of_all_users(sums: pl.DataFrame, users: int) -> dict[str, np.ndarray]:
    """Sums by user number, [users] by name; 0 for users without rows."""
    dense = {name: np.zeros(users) for name in SUMS}
    for name in SUMS:
        dense[name][sums["user"].to_numpy()] = sums[name].to_numpy()
    return dense


def with_derived_sums(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Add the derived sums `users` and `converted` to `SUMS`, [n] by name."""
    return {**sums, "users": np.ones(len(sums["orders"])), "converted": (sums["orders"] > 0).astype(np.float64)}


def _is_simulated(path: Path) -> bool:
    """Whether a manifest of the directory, or of one of its two parents, marks the log as simulated."""
    manifests = (read_manifest(folder) for folder in (path, *path.resolve().parents[:2]) if folder.is_dir())
    return any(bool((manifest or {}).get("simulated")) for manifest in manifests)

"""Input of an experiment: reads exposures and assignments and sums the exposures by user and day.

exposures    columns user_id, ts, clicked and optionally purchased, price: the canonical `impressions`, as a Parquet or
             CSV file or a directory of such files. A directory of canonical tables stands for its impressions, the
             exposure log of `serve` for the impressions in its events
assignment   columns user_id, variant and optionally ts, the time of assignment: Parquet or CSV

A row counts for the variant of its user from the time of assignment. All assigned users count, also users without
exposures. CUPED uses the rows from before the start of the experiment. `Experiment.counts` reports all rows and users
that do not count.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from prectr.contracts.schema import IMPRESSIONS, WANTED_TYPE, Kind
from prectr.core.artifacts import read_manifest
from prectr.core.errors import PrectrError, UsageError
from prectr.data.exposure_log import impressions, is_exposure_log
from prectr.evaluation.experiments.config import ExperimentConfig
from prectr.evaluation.experiments.measures import MEASURES, SUMS, Measure

ROWS = ("user_id", "ts", "clicked")
OPTIONAL = ("purchased", "price")
_KINDS: dict[str, Kind] = {column.name: column.kind for column in IMPRESSIONS.columns}


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


def read_experiment(exposures: Path, assignment: Path, before: Path | None, config: ExperimentConfig) -> Experiment:
    """Read and check the input of an experiment.

    Args:
        exposures: file or directory of exposures, see the heading of this module.
        assignment: file or directory of assignments, see the heading of this module.
        before: rows from before the experiment, in the form of `exposures`; later rows are left out.
        config: control, shares, start, measures and limits.

    Raises:
        UsageError: a path is missing or holds no table, a column is missing or of another type, the variants are not
            those of the configuration, or the configuration requires CUPED and there are no earlier rows.
        PrectrError: values are missing or impossible, users are in several variants, or no row counts.
    """
    rows, columns = _scan_columns(exposures, ROWS, OPTIONAL)
    measures = _choose_measures(exposures, columns, config)
    unpriced = _check_rows(exposures, rows, columns, measures, config)
    users, crossed = _read_assignment(assignment, config)
    variants = _variants(assignment, users["variant"].unique().sort().to_list(), config)
    users = users.filter(pl.col("variant").is_in(variants)).sort("user_id").with_row_index("user")
    joined = rows.join(users.lazy().select("user_id", "user", assigned="ts"), on="user_id", how="left")
    start = _start(config, users, rows)
    is_counted = (pl.col("ts") >= start) & (pl.col("ts") >= pl.col("assigned").fill_null(start))
    is_earlier = pl.col("ts") < start
    is_unassigned = pl.col("user").is_null()
    row_counts, daily, past = pl.collect_all(
        [
            joined.select(
                rows_without_assignment=(is_unassigned & ~is_earlier).sum(),
                users_without_assignment=pl.col("user_id").filter(is_unassigned & ~is_earlier).n_unique(),
                rows_before_their_users_assignment=(~is_unassigned & ~is_earlier & ~is_counted).sum(),
                rows_counted=(~is_unassigned & is_counted).sum(),
            ),
            joined.filter(~is_unassigned & is_counted)
            .group_by("user", pl.col("ts").dt.date().alias("date"))
            .agg(_sums(columns, measures))
            .sort("date", "user"),
            joined.filter(~is_unassigned & is_earlier).group_by("user").agg(_sums(columns, measures)).sort("user"),
        ]
    )
    counts = {name: int(value) for name, value in row_counts.row(0, named=True).items()}
    counts |= {"users_in_several_variants": crossed, "purchases_without_price": unpriced}
    if not counts["rows_counted"]:
        raise PrectrError(
            f"{exposures}: no row counts: none is of an assigned user at or after {start:%Y-%m-%d %H:%M} UTC. Check "
            "experiment.start and the user ids of both files."
        )
    counts["users_without_exposure"] = users.height - daily["user"].n_unique()
    first, last = daily["date"][0], daily["date"][-1]
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    entered = (users["ts"].dt.date() - first).dt.total_days().fill_null(0).clip(0, len(days) - 1)
    if before is not None:
        past = _read_before(before, users, start, columns, measures, config)
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


def _scan_columns(path: Path, required: tuple[str, ...], optional: tuple[str, ...]) -> tuple[pl.LazyFrame, list[str]]:
    """Scan columns of a table in their canonical types; also returns the names of the columns that exist."""
    frame = _scan(path)
    try:
        schema = frame.collect_schema()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise PrectrError(f"{path}: cannot be read as Parquet or CSV ({str(error).splitlines()[0]}).") from None
    missing = [name for name in required if name not in schema]
    if missing:
        described = ", ".join(f"{name} ({_type_name(name)})" for name in missing)
        raise UsageError(f"{path}: lacks {described}; it has {', '.join(schema)}.")
    columns = [name for name in (*required, *optional) if name in schema]
    return frame.select(_cast(path, name, schema[name]) for name in columns), columns


def _scan(path: Path) -> pl.LazyFrame:
    if not path.exists():
        raise UsageError(f"{path}: no such file or directory.")
    if is_exposure_log(path):
        return impressions(path)
    folder = path / "impressions" if (path / "impressions").is_dir() else path
    hidden = (file for file in folder.rglob("*") if not any(part[0] in "._" for part in file.relative_to(folder).parts))
    files = [path] if path.is_file() else sorted(hidden)
    parquet = [file for file in files if file.suffix == ".parquet"]
    csv = [file for file in files if file.suffix == ".csv"]
    if bool(parquet) == bool(csv):
        raise UsageError(f"{path}: give a .parquet or .csv file, or a directory of files of one of these kinds.")
    if parquet:
        return pl.scan_parquet(parquet, hive_partitioning=False, missing_columns="insert", extra_columns="ignore")
    return pl.scan_csv(csv, schema_overrides={"user_id": pl.String, "variant": pl.String, "ts": pl.String})


def _type_name(name: str) -> str:
    """Canonical type of a column, for messages."""
    return WANTED_TYPE[_KINDS.get(name, "string")]


def _cast(path: Path, name: str, kind: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    fits = {
        "string": kind.is_(pl.String) or kind.is_integer() or isinstance(kind, pl.Categorical | pl.Enum),
        "timestamp": isinstance(kind, pl.Datetime) or kind.is_(pl.String),
        "bool": kind.is_(pl.Boolean) or kind.is_integer(),
        "float": kind.is_numeric() or kind.is_(pl.Null),
    }
    canonical = _KINDS.get(name, "string")
    if not fits[canonical]:
        raise UsageError(f"{path}: column {name} is {kind}; it must be {_type_name(name)}.")
    if canonical == "timestamp":
        if kind.is_(pl.String):
            column = column.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
        elif getattr(kind, "time_zone", None) is None:
            column = column.dt.replace_time_zone("UTC")
        return column.dt.convert_time_zone("UTC").cast(pl.Datetime("us", "UTC")).alias(name)
    return column.cast({"string": pl.String, "bool": pl.Boolean, "float": pl.Float64}[canonical])


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


def _check_rows(
    path: Path, rows: pl.LazyFrame, columns: list[str], measures: list[Measure], config: ExperimentConfig
) -> int:
    """Refuse missing and impossible values; returns the number of purchases without a price."""
    checks = {name: pl.col(name).null_count() for name in columns if name != "price"}
    if any(measure.above == "amount" for measure in measures):
        bought, price = pl.col("purchased"), pl.col("price")
        checks |= {
            "orders": bought.sum(),
            "unpriced": (bought & price.is_null()).sum(),
            "impossible": (bought & ~(price.is_finite() & (price >= 0))).sum(),
        }
    counts = rows.select(**checks).collect().row(0, named=True)
    orders, unpriced, impossible = (counts.pop(name, 0) for name in ("orders", "unpriced", "impossible"))
    for name, count in counts.items():
        if count:
            raise PrectrError(f"{path}: column {name} is empty or not {_type_name(name)} in {count:,} rows; mend them.")
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
    return int(unpriced)


def _read_assignment(path: Path, config: ExperimentConfig) -> tuple[pl.DataFrame, int]:
    """Columns user_id, variant, ts (may be null) of the users of one variant; and the number of users of several."""
    rows, columns = _scan_columns(path, ("user_id", "variant"), ("ts",))
    moment = pl.col("ts").min() if "ts" in columns else pl.lit(None, pl.Datetime("us", "UTC"))
    empty = rows.select(pl.col(columns).null_count()).collect().row(0, named=True)
    for name, count in empty.items():
        if count:
            raise PrectrError(f"{path}: column {name} is empty or not {_type_name(name)} in {count:,} rows; mend them.")
    users = (
        rows.group_by("user_id")
        .agg(pl.col("variant").first(), moment.alias("ts"), pl.col("variant").n_unique().alias("variants"))
        .collect()
    )
    crossed = int((users["variants"] > 1).sum())
    if crossed > config.max_crossed_share * users.height:
        example = users.filter(pl.col("variants") > 1)["user_id"].sort()[0]
        raise PrectrError(
            f"{path}: {crossed:,} of {users.height:,} users are in several variants, such as {example!r}. A user must "
            "see one variant only; mend the assignment, or raise experiment.max_crossed_share "
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


def _start(config: ExperimentConfig, users: pl.DataFrame, rows: pl.LazyFrame) -> datetime:
    if config.start is not None:
        return config.start.replace(tzinfo=config.start.tzinfo or UTC).astimezone(UTC)
    earliest = users["ts"].min()
    if earliest is None:
        earliest = rows.select(pl.col("ts").min()).collect().item()
    if not isinstance(earliest, datetime):
        raise PrectrError("The exposures hold no rows; give exposures of the experiment.")
    return earliest


def _sums(columns: list[str], measures: list[Measure]) -> list[pl.Expr]:
    bought = pl.col("purchased") if "purchased" in columns else pl.lit(False)
    with_amount = any(measure.above == "amount" for measure in measures)
    # Sorted, because a sum's last digit depends on the order of the rows, which varies with the threads.
    amount = pl.col("price").filter(bought).sort().sum() if with_amount else pl.lit(0.0)
    orders = bought.sum() if "purchased" in columns else pl.lit(0)
    sums = {"impressions": pl.len(), "clicks": pl.col("clicked").sum(), "orders": orders, "amount": amount}
    return [column.cast(pl.Float64).alias(name) for name, column in sums.items()]


def _read_before(
    path: Path,
    users: pl.DataFrame,
    start: datetime,
    columns: list[str],
    measures: list[Measure],
    config: ExperimentConfig,
) -> pl.DataFrame:
    """Sums by user of the assigned users' rows from before the experiment."""
    with_amount = any(measure.above == "amount" for measure in measures)
    needed = tuple(name for name in columns if name != "price" or with_amount)
    rows, names = _scan_columns(path, needed, ())
    _check_rows(path, rows, names, measures, config)
    joined = rows.filter(pl.col("ts") < start).join(users.lazy().select("user_id", "user"), on="user_id")
    return joined.group_by("user").agg(_sums(names, measures)).sort("user").collect()


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

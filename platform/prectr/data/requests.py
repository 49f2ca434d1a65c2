"""Requests of a log: which rows belong together, their common time, and rows that repeat an item.

A request is one request_id, user and query whose rows lie within `validation.request_minutes` of its earliest row,
whose time all of its rows get; otherwise rows of one list would see each other's clicks. A request_id that stands for
several requests of one day is told apart by a number: `7`, `7~2`, `7~3` in the order of time, user and query.

Rows that repeat an item in a request are one row: clicked or purchased if any of them is, with the values of the
earliest row that has some.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import polars as pl

from prectr.data.reading.bad_rows import as_json

REQUEST, START = "__request", "__start"
KEY = ["request_id", "user_id", "query"]
EQUAL = "the same row again"
CLICKS_DIFFER = "an item again in its request, with another clicked or purchased: either counts"
OTHERS_DIFFER = "an item again in its request, with other values: those of the earliest row are kept"
REUSED = "request ids that stand for several requests of a day"


@dataclass
class Settled:
    """Rows of a unit of requests.

    Attributes:
        tables: table -> rows with the time and the name of their request, sorted by ts, request_id, position, item_id.
            merged: table -> reason -> rows that were merged into others.
        renamed: requests that got a number because their request_id stands for several of a day.
    """

    tables: dict[str, pl.DataFrame]
    merged: dict[str, Counter[str]] = field(default_factory=dict)
    renamed: int = 0


def settle(tables: dict[str, pl.DataFrame], minutes: float) -> Settled:
    """Put rows of impressions and candidates into requests.

    Args:
        tables: table -> its good rows. All rows of a request_id must be there.
        minutes: longest time between the first and the last row of a request.
    """
    keys = pl.concat([frame.select(*KEY, "ts") for frame in tables.values()], rechunk=False)
    number, requests = _requests(keys, timedelta(minutes=minutes))
    names, renamed = _names(requests)
    requests = requests.with_columns(names)
    settled = Settled({}, renamed=renamed)
    start = 0
    for table, frame in tables.items():
        places = number[start : start + frame.height]
        start += frame.height
        order = ["ts", "request_id", *(["position"] if "position" in frame.columns else []), "item_id"]
        is_sorted = _is_sorted(places, requests, frame)
        of_row = pl.Series(REQUEST, places)
        changed = [requests[START].gather(of_row).alias("ts")]
        if renamed:
            changed.append(requests["request_id"].gather(of_row))
        rows, settled.merged[table] = _merge_repeats(frame.with_columns(of_row), changed)
        rows = rows.drop(REQUEST)
        settled.tables[table] = rows if is_sorted else rows.sort(order)
    return settled


def _is_sorted(places: np.ndarray, requests: pl.DataFrame, rows: pl.DataFrame) -> bool:
    """Whether rows are in the order of their requests' time and name, then of the position.

    Args:
        places: number of each row's request.
        requests: the requests, numbered in the order of their first rows.
        rows: rows of a table.
    """
    if "position" not in rows.columns:
        return False
    later = np.diff(places.astype(np.int64))
    position = np.diff(rows["position"].to_numpy().astype(np.int64))
    if not ((later > 0) | ((later == 0) & (position > 0))).all():
        return False
    time, name = pl.col(START), pl.col("request_id")
    above = (time > time.shift()) | ((time == time.shift()) & (name > name.shift()))
    return bool(requests.select(above.slice(1).all()).item())


def _requests(keys: pl.DataFrame, longest: timedelta) -> tuple[np.ndarray, pl.DataFrame]:
    """Number the requests, in the order of their first rows except those that are cut from others.

    Returns:
        The number of each row's request, uint32 [n]; and the requests by number: `KEY` and `START`, their time.
    """
    changes = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in KEY)
    is_first = keys.select(changes).to_series().to_numpy().copy()
    is_first[0] = True
    starts = np.flatnonzero(is_first)
    ts = keys["ts"].dt.epoch("us").to_numpy()
    runs = keys.select(KEY).filter(pl.Series(is_first)).with_columns(
        first=pl.Series(np.minimum.reduceat(ts, starts)), last=pl.Series(np.maximum.reduceat(ts, starts))
    )  # fmt: skip
    number = np.cumsum(is_first, dtype=np.uint32) - np.uint32(1)
    if runs.select(KEY).is_duplicated().any():
        distinct = runs.group_by(KEY, maintain_order=True).agg(pl.col("first").min(), pl.col("last").max())
        of_run = runs.select(KEY).join(
            distinct.select(KEY).with_row_index("group"), on=KEY, how="left", maintain_order="left"
        )["group"]
        runs, number = distinct, of_run.to_numpy()[number]
    span = int(longest.total_seconds() * 1_000_000)
    too_long = np.flatnonzero((runs["last"] - runs["first"]).to_numpy() > span)
    requests = runs.select(*KEY, pl.col("first").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias(START))
    if len(too_long):
        places = np.flatnonzero(np.isin(number, too_long))
        places = places[np.lexsort((ts[places], number[places]))]
        later, first_rows = _cut(number[places], ts[places], span)
        origins = number[places[first_rows]]
        number = number.copy()
        number[places[later >= 0]] = requests.height + later[later >= 0]
        times = pl.Series(ts[places[first_rows]]).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        cut = requests.select(KEY)[pl.Series(origins)].with_columns(times.alias(START))
        requests = pl.concat([requests, cut])
    return number, requests


def _cut(group: np.ndarray, ts: np.ndarray, span: int) -> tuple[np.ndarray, list[int]]:
    """Cut groups, sorted by time, into requests.

    Args:
        group: group of each row, sorted.
        ts: time of each row in microseconds, sorted within its group.
        span: longest time from the first row of a request to its last one, in microseconds.

    Returns:
        For each row -1 if it is in the first request of its group, else the number of its request among the later ones
        of all groups; and the first row of each of these.
    """
    number = np.full(len(group), -1, np.int64)
    starts: list[int] = []
    bounds = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(group)]
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        place = low + int(np.searchsorted(ts[low:high], ts[low] + span, side="right"))
        while place < high:
            end = low + int(np.searchsorted(ts[low:high], ts[place] + span, side="right"))
            number[place:end] = len(starts)
            starts.append(place)
            place = end
    return number, starts


def _names(requests: pl.DataFrame) -> tuple[pl.Series, int]:
    """Ids of requests, unique within a day; and how many were changed."""
    day = pl.col(START).dt.date()
    again = requests.select(pl.struct("request_id", day).is_duplicated()).to_series()
    if not again.any():
        return requests["request_id"], 0
    shared = requests.with_row_index("place").filter(again).sort("request_id", START, "user_id", "query")
    turn = pl.int_range(pl.len()).over("request_id", day) + 1
    later = shared.with_columns(turn=turn).filter(pl.col("turn") > 1)
    names = later.select(pl.format("{}~{}", "request_id", "turn")).to_series()
    if names.is_in(requests["request_id"].implode()).any():
        names = _free_names(requests, later)
    return requests["request_id"].clone().scatter(later["place"], names), later.height


def _free_names(requests: pl.DataFrame, later: pl.DataFrame) -> pl.Series:
    """Names of later requests of a day where the log itself holds some of them, such as an id `7~2` beside `7`."""
    taken = set(requests.select("request_id", pl.col(START).dt.date()).iter_rows())
    names = []
    for name, day, turn in later.select("request_id", pl.col(START).dt.date(), "turn").iter_rows():
        while (f"{name}~{turn}", day) in taken:
            turn += 1
        names.append(f"{name}~{turn}")
        taken.add((names[-1], day))
    return pl.Series(names, dtype=pl.String)


def _merge_repeats(rows: pl.DataFrame, changed: list[pl.Series]) -> tuple[pl.DataFrame, Counter[str]]:
    """Make one row of those with one request and item, in the place of the earliest one.

    Args:
        rows: rows with `REQUEST`.
        changed: columns that replace those of `rows` afterwards.

    Returns:
        All rows, and counts of the merged ones by reason.
    """
    merged: Counter[str] = Counter()
    marks = rows.select(pl.col("item_id").hash(seed=0) ^ pl.col(REQUEST).cast(pl.UInt64).hash(seed=1)).to_series()
    if marks.n_unique() == rows.height:
        return rows.with_columns(changed), merged
    again = marks.is_duplicated()
    key = [REQUEST, "item_id"]
    clicks = [name for name in ("clicked", "purchased") if name in rows.columns]
    values = [name for name in rows.columns if name not in (*key, *clicks, "ts", "request_id")]
    outcome = pl.concat_str(pl.lit(""), *(pl.col(name).cast(pl.String).fill_null("-") for name in clicks))
    repeated = rows.with_row_index("__place").filter(again)
    repeated = repeated.with_columns(as_json(repeated.select(values)).alias("__values"), __clicks=outcome)
    first = [name for name in ("position",) if name in values]
    made = (
        repeated.sort(*key, "ts", *first, "__values", "__clicks", "__place")
        .group_by(key, maintain_order=True)
        .agg(
            pl.col("__place"),
            *(pl.col(name).drop_nulls().first() for name in values),
            *(pl.when(pl.col(name).count() > 0).then(pl.col(name).any()).first().alias(name) for name in clicks),
            pl.col("__values").n_unique().alias("__kinds"),
            pl.struct("__clicks", "ts").n_unique().alias("__outcomes"),
        )
        .filter(pl.col("__place").list.len() > 1)  # other rows only share a hash
    )
    more = made["__place"].list.len() - 1
    equal = (made["__kinds"] == 1) & (made["__outcomes"] == 1)
    for reason, where in (
        (EQUAL, equal),
        (CLICKS_DIFFER, (made["__kinds"] == 1) & ~equal),
        (OTHERS_DIFFER, made["__kinds"] > 1),
    ):
        merged[reason] += int(more.filter(where).sum())
    kept = made["__place"].list.first()
    dropped = made.select(pl.col("__place").list.slice(1).explode()).to_series()
    earliest = rows.select(*values, *clicks)[kept]
    filled = [
        _replaced(rows[name], kept, made[name])
        for name in (*values, *clicks)
        if not made[name].equals(earliest[name], null_equal=True)
    ]
    keep = pl.repeat(True, rows.height, eager=True).scatter(dropped, False)
    return rows.with_columns(*filled, *changed).filter(keep), +merged


def _replaced(column: pl.Series, places: pl.Series, values: pl.Series) -> pl.Series:
    """The column with other values at some places; polars cannot scatter lists and objects."""
    if not column.dtype.is_nested():
        return column.clone().scatter(places, values)
    added = pl.int_range(column.len(), column.len() + values.len(), eager=True)
    origins = pl.int_range(column.len(), eager=True).scatter(places, added)
    return pl.concat([column, values]).gather(origins)

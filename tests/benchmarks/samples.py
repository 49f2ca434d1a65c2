"""`build-samples` against DuckDB: the same log and preferences, the same sample rows, from process start to its end.

Both sides make of every impression what was known before it: tolerances of user, query and category with their
deviations and counts, threshold, distances and predictive click; smoothed rates of user, query, item, pair, brand and
category; rates and shares by relevance level; S_u (last clicks before the moment) and S_q (other users' behaviours as
of the day). The user's own part is taken out of the query's and the pair's sums. Every column is compared.

Both read the tables `before/` of one preferences artifact, which belong to mining; it is mined without fading and
without the correction of one side for the other, to keep the SQL in bounds. Only our side makes the ids of categorical
fields, the table of pairs and the scalers of features, and sorts rows by day and time; these are not compared.

    PRECTR_BENCH_DIR=FOLDER make bench-samples
    .venv/bin/python tests/benchmarks/samples.py --rows 200000 --runs 1
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from _logs import Log, make_log, scratch_folder
from _measure import Cost, measured, median
from _smallest import ROWS as SMALLEST_ROWS
from _smallest import parse_options, print_result

DUCKDB = Path(__file__).with_name("_samples_duckdb.py")
ROWS = 2_000_000
RUNS = 3
ORDER = ["ts", "request_id", "position"]
TOLERANCE = 1e-4
"""Features are single precision, and sums are added up in another order."""
ROWS_ONLY = ("--set", "samples.online=false", "--set", "samples.candidates=false")
"""The SQL makes neither; and the made-up relevance holds no unexposed candidates."""
NOT_COMPARED = "cat."
"""Ids of categorical fields: their vocabularies are ours."""


def compare_rows(ours: Path, theirs: Path) -> dict[str, float]:
    """Compare every column of all rows, a day at a time; the largest difference by feature.

    Raises:
        SystemExit: a row is missing, or a value differs.
    """
    largest: dict[str, float] = {}
    expected_rows = pl.scan_parquet(theirs / "rows.parquet")
    days = expected_rows.select(pl.col("date").unique().sort()).collect()["date"]
    folders = sorted(ours.glob("rows/date=*"))
    if [folder.name for folder in folders] != [f"date={day}" for day in days]:
        raise SystemExit("the days of ours are not those of DuckDB")
    for day, folder in zip(days, folders):
        found = pl.read_parquet(folder / "*.parquet", hive_partitioning=False).sort(ORDER)
        expected = expected_rows.filter(pl.col("date") == pl.lit(day)).collect().sort(ORDER)
        if found.height != expected.height:
            raise SystemExit(f"{folder.name}: {found.height:,} rows of ours, {expected.height:,} of DuckDB")
        for name in found.columns:
            if name.startswith(NOT_COMPARED):
                continue
            off = difference(found[name], expected[name])
            largest[name] = max(largest.get(name, 0.0), off)
            if off > TOLERANCE:
                raise SystemExit(f"{folder.name}: column '{name}' differs by {off}")
    return largest


def difference(found: pl.Series, expected: pl.Series) -> float:
    """The largest difference of numbers; infinite where other values, or lists, are not equal."""
    if found.dtype == pl.List:
        lengths = (column.list.len().fill_null(0) for column in (found, expected))
        values = (column.explode().drop_nulls().cast(pl.Int64) for column in (found, expected))
        return 0.0 if next(lengths).equals(next(lengths)) and next(values).equals(next(values)) else np.inf
    if found.dtype.is_float() and found.is_null().equals(expected.is_null()):
        off = (found - expected).abs().drop_nulls().to_numpy()
        return float(np.nan_to_num(off, nan=np.inf).max(initial=0.0))
    return 0.0 if found.equals(expected.cast(found.dtype)) else np.inf


def mine(log: Log, out: Path) -> None:
    """The preferences that both sides read."""
    settings = ("preferences.half_life_days=null", "preferences.alternate=false")
    command = ["jobs", "mine-preferences", "--tables", str(log.tables), "--relevance", str(log.relevance)]
    assignments = [part for setting in settings for part in ("--set", setting)]
    measured([sys.executable, "-m", *command, *assignments, "--out", str(out)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both sides in turn and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--runs", type=int, default=RUNS)
    given = parse_options(parser, arguments, {"rows": SMALLEST_ROWS, "runs": 1})
    print("samples: prectr build-samples vs the same rows by DuckDB; throughput, start-up included")
    costs: dict[str, list[Cost]] = {"duckdb": [], "ours": []}
    with scratch_folder() as folder:
        log, work = make_log(folder, given.rows, given.smallest), folder / f"samples-{given.rows}"
        preferences = work / "preferences"
        mine(log, preferences)
        inputs = [str(path) for path in (log.tables, log.relevance, preferences)]
        options = [part for pair in zip(("--tables", "--relevance", "--preferences"), inputs) for part in pair]
        for run in range(given.runs):
            for side, command in (
                ("duckdb", [str(DUCKDB), *inputs, str(work / "duckdb")]),
                ("ours", ["-m", "jobs", "build-samples", *options, *ROWS_ONLY, "--out"]),
            ):
                out = work / side
                shutil.rmtree(out, ignore_errors=True)
                if side == "duckdb":
                    out.mkdir()
                costs[side].append(measured([sys.executable, *command, *([str(out)] if side == "ours" else [])]))
                print(f"run {run + 1}, {side}: {costs[side][-1]}", file=sys.stderr)
        largest = compare_rows(work / "ours", work / "duckdb")
        shutil.rmtree(work)
    medians = {side: median(of_side) for side, of_side in costs.items()}
    result = {
        "ratio": round(medians["duckdb"].seconds / medians["ours"].seconds, 3),
        "rows": log.rows,
        "runs": given.runs,
        **{side: cost.to_json() for side, cost in medians.items()},
        "rows_per_second": {side: round(log.rows / cost.seconds) for side, cost in medians.items()},
        "columns_compared": len(largest),
        "largest_difference": max(largest.values()),
        "data": "simulated",
    }
    print_result(result, given.smallest)


if __name__ == "__main__":
    main()

"""Mining against DuckDB: the same log, the same tables, both sides measured from the start of their process to its end.

What both make of the Parquet files of impressions, pairs and items: per (user, day), (query, day) and (category, day)
the 23 sums of the tolerance grid, examinations and clicks; of queries and categories by relevance level, with
impressions and debiased clicks. Parameters are those that `prectr mine-preferences` fitted on the log. The tables are
compared cell by cell; then the times are.

    side     what it does
    duckdb   one process: SQL, with log-likelihoods of a row looked up in a table by position, click and relevance. Of
             five forms tried (expressions per row, grouping sets, counts by cell, lookups) this was the fastest.
    same     our partial sums of exactly these three tables as Ray tasks, and the merge of a day's parts
    pass     our whole second pass, which also makes items, pairs, prices, distinct users and S_q, and the same merge
    command  `prectr mine-preferences`: fit, both passes with the correction, and the folds over days

The ratio is the throughput of `same` over that of `duckdb`. Rows default to 5 and 50 million; the growth of time is
the seconds per row at the larger log over those at the smaller one.

    PRECTR_BENCH_DIR=FOLDER make bench-mining
    .venv/bin/python tests/benchmarks/mining.py --rows 200000 --runs 1
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from _logs import ROWS_A_REQUEST, Log, make_log, scratch_folder
from _measure import Cost, measured, median
from _smallest import ROWS as SMALLEST_ROWS
from _smallest import parse_options, print_result

KEYS = {"user": "user_id", "query": "query", "category": "category"}
DUCKDB = Path(__file__).with_name("_mining_duckdb.py")
SIDES = ("duckdb", "same", "pass")
ROWS = (5_000_000, 50_000_000)
RUNS = 3
LARGE_RUNS = 1
"""Runs of a log of more than LARGE rows: they are long, and a start-up more or less matters little there."""
LARGE = 10_000_000


def run_ours(tables: Path, relevance: Path, parameters: Path, out: Path, whole_pass: bool) -> None:
    """Our side: the stage's own parts, tasks and readers."""
    import ray

    from prectr.core.parquet import write_part
    from prectr.core.ray_session import ray_session, task_budget
    from prectr.core.ray_tasks import run_tasks
    from prectr.data.parts import plan_parts
    from prectr.data.tables import Tables
    from prectr.preferences import passes
    from prectr.preferences.fit import PreferenceModel
    from prectr.preferences.passes import Pass
    from prectr.preferences.shown import ShownReader

    source, model = Tables(tables), PreferenceModel.load(parameters)
    nobody = {"date": pl.Date, "shift": pl.Int16}
    write_part(out / "centres/user", 0, pl.DataFrame(schema={"user_id": pl.String, **nobody, "requests": pl.Float64}))
    write_part(out / "centres/query", 0, pl.DataFrame(schema={"query": pl.String, **nobody}))
    with ray_session():
        budget = task_budget()
        shared = Pass(out, ray.put(ShownReader.open(Tables(tables), relevance)), model, 30, alternate=False)
        days = source.days_with_rows("impressions")
        work = partial(passes.main_pass if whole_pass else three_tables, shared=shared)
        run_tasks(work, plan_parts(source, days, budget), budget.at_once)
        run_tasks(partial(merge_day, out=out), list(enumerate(days)), budget.at_once)


def three_tables(part: Any, shared: Any) -> None:
    """The second pass without what the SQL does not make."""
    from prectr.core.coding import Coded
    from prectr.core.parquet import write_part
    from prectr.preferences.counting import level_sums
    from prectr.preferences.days import day_folder
    from prectr.preferences.partials import user_sums
    from prectr.preferences.sums import LEVEL_NAMES, USER_NAMES, columns

    reader, table = shared.open_reader(), shared.table
    rows = reader.read(part, ["request_id"])
    cells = table.cells(rows.clicked, rows.position, reader.index.expected[rows.place])
    category = Coded(reader.catalogue.category[rows.item_place], reader.catalogue.categories)
    made = {"user": (rows.user, user_sums(rows, cells, table), USER_NAMES)}
    for kind, keys in (("query", rows.query), ("category", category)):
        sums = level_sums(
            keys.codes,
            len(keys),
            cells=cells,
            level=reader.index.level[rows.place],
            position=rows.position,
            clicked=rows.clicked,
            log_price=np.full(len(rows), np.nan),
            table=table,
        )
        made[kind] = (keys, sums, LEVEL_NAMES)
    for kind, (keys, sums, names) in made.items():
        shown = np.flatnonzero(np.bincount(keys.codes, minlength=len(keys)))
        frame = pl.DataFrame([keys.keys.gather(shown).alias(KEYS[kind]), *columns(sums[shown], names)])
        write_part(day_folder(shared.out, part.day) / kind, part.number, frame)


def merge_day(task: tuple[int, Any], out: Path) -> None:
    """Add the parts of a day up, and write the day's rows of the three tables."""
    from prectr.core.parquet import write_part
    from prectr.preferences.days import day_folder

    number, day = task
    for kind, key in KEYS.items():
        parts = pl.scan_parquet(day_folder(out, day) / kind / "*.parquet", hive_partitioning=False)
        merged = parts.group_by(key).sum().with_columns(pl.lit(day).alias("date")).collect()
        write_part(out / kind, number, merged)


def compare_tables(ours: Path, theirs: Path) -> int:
    """The largest difference of a grid sum, in units of 2^-20.

    Raises:
        SystemExit: another key or count, or a grid sum off by more than one unit a row, which the last bit of a
            logarithm may bring.
    """
    largest = 0
    for kind, key in KEYS.items():
        found, expected = (
            pl.read_parquet(folder / kind / "*.parquet", hive_partitioning=False).sort("date", key)
            for folder in (ours, theirs)
        )
        if not found.select(key, "date").equals(expected.select(key, "date")):
            raise SystemExit(f"{kind}: {found.height:,} keys of ours are not the {expected.height:,} of DuckDB")
        rows = (
            found["requests"] * ROWS_A_REQUEST
            if kind == "user"
            else found.select(pl.sum_horizontal(pl.col("^impressions_.$"))).to_series()
        ).to_numpy()
        for name in expected.columns:
            if name in (key, "date"):
                continue
            off = np.abs(found[name].to_numpy().astype(np.int64) - expected[name].to_numpy().astype(np.int64))
            if (off > (rows if name.startswith("grid_") else 0)).any():
                raise SystemExit(f"{kind}: column '{name}' differs by up to {off.max()}")
            largest = max(largest, int(off.max()))
        print(f"  {kind}: {found.height:,} rows, {len(expected.columns) - 2} columns equal", file=sys.stderr)
    return largest


def measure_log(log: Log, folder: Path, runs: int) -> dict[str, Any]:
    """Run all sides on a log, turn about; the figures."""
    work = folder / f"mining-{log.rows}"
    clear(work)
    inputs = [str(log.tables), str(log.relevance)]
    preferences = work / "preferences"
    command = [sys.executable, "-m", "jobs", "mine-preferences", "--tables", inputs[0], "--relevance", inputs[1]]
    mined = measured([*command, "--out", str(preferences)])
    costs: dict[str, list[Cost]] = {side: [] for side in SIDES}
    for run in range(runs):
        for side in SIDES:
            out = work / side
            clear(out)
            script = [str(DUCKDB)] if side == "duckdb" else [__file__, "--side", side]
            own = [sys.executable, *script, *inputs, str(preferences / "parameters.json"), str(out)]
            costs[side].append(measured(own))
            print(f"{log.rows:,} rows, run {run + 1}, {side}: {costs[side][-1]}", file=sys.stderr)
    largest = [compare_tables(work / side, work / "duckdb") for side in ("same", "pass")]
    clear(work)
    work.rmdir()
    medians = {side: median(of_side) for side, of_side in costs.items()} | {"command": mined}
    duckdb = medians["duckdb"].seconds
    return {
        "rows": log.rows,
        "runs": runs,
        "ratio": round(duckdb / medians["same"].seconds, 3),
        "ratio_pass": round(duckdb / medians["pass"].seconds, 3),
        **{side: cost.to_json() for side, cost in medians.items()},
        "rows_per_second": {side: round(log.rows / cost.seconds) for side, cost in medians.items()},
        "largest_difference_units": max(largest),
    }


def clear(folder: Path) -> None:
    """Make an empty folder."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, or be one side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--side", choices=SIDES[1:], help="be one of our sides")
    parser.add_argument("inputs", type=Path, nargs="*")
    given = parse_options(parser, arguments, {"rows": [SMALLEST_ROWS], "runs": 1})
    if given.side:
        return run_ours(*given.inputs, whole_pass=given.side == "pass")
    print("mining: our partial sums and merge on Ray vs the same tables by DuckDB; throughput, start-up included")
    with scratch_folder() as folder:
        logs = [make_log(folder, rows, given.smallest) for rows in given.rows]
        figures = [measure_log(log, folder, given.runs if log.rows <= LARGE else LARGE_RUNS) for log in logs]
    first, last = figures[0], figures[-1]
    growth = {
        side: round(last[side]["seconds"] / last["rows"] / (first[side]["seconds"] / first["rows"]), 3)
        for side in (*SIDES, "command")
    }
    result = {"ratio": last["ratio"], "time_per_row_growth": growth, "logs": figures, "data": "simulated"}
    print_result(result, given.smallest)


if __name__ == "__main__":
    main()

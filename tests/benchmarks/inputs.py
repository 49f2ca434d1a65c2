"""Reading users' files: the one reader and bare polars on one CSV file, and `validate` of a small and a large log.

The log is made up: requests of ten rows over some days, in the order of time, one file a day. The CSV file holds the
impressions of the small log. Both sides read all columns as text and write Parquet; ours checks every line too. The
sides take turns, and the medians count.

    make bench-inputs
    make bench-inputs BENCH_OPTIONS='--rows 5000000 --large 50000000'
"""

import argparse
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from _logs import scratch_folder
from _measure import Cost, measured
from _smallest import parse_options, print_result

DAYS, ITEMS, USERS, QUERIES = 10, 100_000, 200_000, 50_000
ROWS_A_REQUEST = 10
SMALLEST = {"rows": 20_000, "large": 60_000, "runs": 1}


def make_log(folder: Path, rows: int) -> Path:
    """Write the log, unless it is there: items.parquet and impressions/DAY.parquet."""
    if (folder / "items.parquet").is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "impressions").mkdir(parents=True)
    rng = np.random.default_rng(0)
    requests = rows // DAYS // ROWS_A_REQUEST
    for day in range(DAYS):
        midnight = np.datetime64("2026-03-01", "us").astype(np.int64) + day * 86_400_000_000
        times = np.sort(midnight + rng.integers(0, 86_400_000_000, requests))

        def repeated(values: Any) -> Any:
            return np.repeat(values, ROWS_A_REQUEST)

        shown = (rng.integers(0, ITEMS, (requests, 1)) + np.arange(ROWS_A_REQUEST) * 9973) % ITEMS
        frame = pl.DataFrame(
            {
                "request": repeated(np.arange(day * requests, (day + 1) * requests)),
                "user": repeated(rng.integers(0, USERS, requests)),
                "ts": repeated(times),
                "query": repeated((rng.pareto(1.0, requests) * 100).astype(np.int64) % QUERIES),
                "item": shown.ravel(),
                "position": np.tile(np.arange(1, ROWS_A_REQUEST + 1, dtype=np.int32), requests),
                "clicked": rng.random(requests * ROWS_A_REQUEST) < 0.1,
            }
        )
        frame.select(
            request_id=pl.format("r{}", "request"),
            user_id=pl.format("u{}", "user"),
            ts=pl.col("ts").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            query=pl.format("query number {}", "query"),
            item_id=pl.format("i{}", "item"),
            position="position",
            clicked="clicked",
        ).write_parquet(folder / "impressions" / f"{day:02d}.parquet")
    items = np.arange(ITEMS)
    pl.DataFrame({"item": items}).select(
        item_id=pl.format("i{}", "item"), title=pl.format("title of item {}", "item")
    ).write_parquet(folder / "items.parquet")
    return folder


def csv_of(log: Path) -> Path:
    """The impressions of a log as one CSV file in a log of its own, beside the same items."""
    folder = log.with_name(f"{log.name}-csv")
    file = folder / "impressions.csv"
    if not file.is_file():
        folder.mkdir(exist_ok=True)
        shutil.copyfile(log / "items.parquet", folder / "items.parquet")
        rows = pl.scan_parquet(sorted((log / "impressions").glob("*.parquet")))
        rows.with_columns(pl.col("ts").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")).sink_csv(file)
    return file


def csv_seconds(file: Path, runs: int, scratch: Path) -> dict[str, float]:
    """Median seconds of both sides, which take turns."""
    seconds: dict[str, list[float]] = {"ours": [], "polars": []}
    script = Path(__file__).with_name("_inputs_csv.py")
    for _ in range(runs):
        for side, times in seconds.items():
            out = scratch / f"csv-{side}"
            command = [sys.executable, str(script), side, str(file), str(out)]
            times.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            shutil.rmtree(out) if out.is_dir() else out.unlink()
    return {side: statistics.median(times) for side, times in seconds.items()}


def validated(log: Path, scratch: Path, runs: int) -> Cost:
    """Cost of `prectr validate` in a process of its own: the median of the times, the highest peak."""
    costs = []
    for _ in range(runs):
        shutil.rmtree(scratch / "out", ignore_errors=True)
        out = str(scratch / "out" / "tables")
        costs.append(measured([sys.executable, "-m", "jobs", "validate", str(log), "--out", out]))
    shutil.rmtree(scratch / "out", ignore_errors=True)
    return Cost(
        statistics.median(cost.seconds for cost in costs),
        statistics.median(cost.cpu_seconds for cost in costs),
        max(cost.peak_gib for cost in costs),
    )


def main() -> None:
    """Run all parts and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=5_000_000, help="impressions of the small log and the CSV file")
    parser.add_argument("--large", type=int, default=50_000_000, help="impressions of the large log")
    parser.add_argument("--runs", type=int, default=3, help="runs of each part, besides the large log's one")
    options = parse_options(parser, None, SMALLEST)
    with scratch_folder() as scratch:
        small = make_log(scratch / f"inputs-{options.rows}", options.rows)
        file = csv_of(small)
        csv = csv_seconds(file, options.runs, scratch)
        result: dict[str, Any] = {
            "csv_ratio": round(csv["polars"] / csv["ours"], 3),
            "csv_seconds": {side: round(seconds, 2) for side, seconds in csv.items()},
            "csv_megabytes": round(file.stat().st_size / 1e6, 1),
        }
        costs = {
            "small": (validated(small, scratch, options.runs), options.rows),
            "csv": (validated(file.parent, scratch, options.runs), options.rows),
            "large": (
                validated(make_log(scratch / f"inputs-{options.large}", options.large), scratch, 1),
                options.large,
            ),
        }
        per_row = {name: cost.seconds / rows * 1e6 for name, (cost, rows) in costs.items()}
        result |= {
            "large_over_small_a_row": round(per_row["large"] / per_row["small"], 3),
            "microseconds_a_row": {name: round(value, 3) for name, value in per_row.items()},
            "validate": {name: cost.to_json() | {"rows": rows} for name, (cost, rows) in costs.items()},
        }
        print_result(result, options.smallest)


if __name__ == "__main__":
    main()

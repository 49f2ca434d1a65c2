"""`score-relevance` against bare ONNX Runtime loops over the same pairs, with two threads in all on every side.

    side        what it does, each a process of its own
    ours        the job as a command: pairs drawn from the log, tokenised, scored by two Ray Data actors of one thread,
                with match features, known levels and tokens beside the scores, written as Parquet
    processes   two processes of one thread over pairs that are tokenised and sorted by length beforehand
    session     the same pairs by one session with two threads

Our rate is taken from when the job's parts were written: pairs of the parts after the first ones (one an actor), over
the time from the last of those to the last part. So it holds all that a part costs, but no start-up. The ratio is to
the faster bare loop. The expected levels of all sides are compared.

    PRECTR_BENCH_DIR=FOLDER make bench-relevance
    .venv/bin/python tests/benchmarks/relevance.py --requests 3000 --rounds 1 --block-pairs 1024
"""

import argparse
import json
import os
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as parquet
from _logs import scratch_folder
from _measure import measured
from _quality_world import World
from _smallest import parse_options, print_result
from _training_world import quick_world

from prectr.relevance.config import ScoreConfig

BARE = Path(__file__).with_name("_relevance_bare.py")
MANY_PAIRS = ("simulate.items=30000", "simulate.queries=4000")
"""A larger catalogue than the small marketplace's: with its few pairs the job would be done before the processes that
Ray starts beforehand have finished importing."""
SIDES = ("ours", "processes", "session")
TOLERANCE = 0.02
"""Largest difference between sides, in standard deviations of the expected level over pairs: this encoder has learnt
little, so its levels lie close together."""
PRECISION = 1e-6
"""Largest difference that single precision explains, where the encoder has learnt nothing, as at the smallest size."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}


def run_ours(world: World, out: Path, config: ScoreConfig) -> dict[str, Any]:
    """The job; its figures."""
    command = [sys.executable, "-m", "jobs", "score-relevance", "--out", str(out)]
    inputs = {"tables": world.tables, "encoder": world.encoder, "labels": world.folder / "labels"}
    options = [part for name, path in inputs.items() for part in (f"--{name}", str(path))]
    settings = [
        part
        for name, value in config.model_dump(exclude_defaults=True).items()
        for part in ("--set", f"relevance.{name}={value}")
    ]
    cost = measured([*command, *options, *settings], os.environ | ONE_THREAD)
    files = sorted(out.glob("pairs/part-*.parquet"), key=lambda file: file.stat().st_mtime_ns)
    if len(files) <= 2 * config.actors:
        raise SystemExit(f"{len(files)} parts are too few to time; lower --block-pairs or raise --requests.")
    written = [file.stat().st_mtime_ns / 1e9 for file in files]
    later = sum(parquet.read_metadata(file).num_rows for file in files[config.actors :])
    rate = later / (written[-1] - written[config.actors - 1])
    return {"pairs_per_second": rate, "parts": len(files), **cost.to_json()}


def run_bare(side: str, world: World, out: Path, config: ScoreConfig) -> dict[str, Any]:
    """A bare loop; its figures."""
    out.mkdir()
    inputs = (world.tables, world.encoder, world.folder / "labels")
    command = [sys.executable, str(BARE), side, *map(str, inputs), str(config.batch_size), str(out)]
    cost = measured(command, os.environ | ONE_THREAD)
    figures: dict[str, Any] = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    return figures | cost.to_json()


def compare(work: Path) -> tuple[int, float, float]:
    """Number of pairs, the largest difference of an expected level from ours, and its spread over pairs.

    Raises:
        SystemExit: sides differ.
    """
    ours = pl.read_parquet(work / "ours" / "pairs" / "*.parquet").sort("pair")["encoder_expected"].to_numpy()
    off = max(float(np.abs(ours - np.load(work / side / "expected.npy")).max()) for side in SIDES[1:])
    spread = float(ours.std())
    if not off <= max(TOLERANCE * spread, PRECISION):
        raise SystemExit(f"an expected level differs by {off}; its standard deviation over pairs is {spread}")
    return len(ours), off, spread


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all sides, each second round in reverse, and print the figures."""
    given = _options(arguments)
    config = ScoreConfig(block_pairs=given.block_pairs, batch_size=given.batch_size)
    print("score-relevance: the job vs bare ONNX Runtime loops over the same pairs; pairs per second after start-up")
    figures: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    with scratch_folder() as folder:
        folder.mkdir(parents=True, exist_ok=True)
        world = quick_world(folder, given.requests, "pairs", MANY_PAIRS, given.smallest)
        work = folder / "relevance-sides"
        for turn in range(given.rounds):
            for side in SIDES[:: 1 if turn % 2 == 0 else -1]:
                out = work / side
                shutil.rmtree(out, ignore_errors=True)
                work.mkdir(exist_ok=True)
                ran = run_ours(world, out, config) if side == "ours" else run_bare(side, world, out, config)
                figures[side].append(ran)
                print(f"round {turn + 1}, {side}: {ran}", file=sys.stderr)
        pairs, off, spread = compare(work)
        shutil.rmtree(work)
    rates = {side: statistics.median(one["pairs_per_second"] for one in ran) for side, ran in figures.items()}
    result = {
        "ratio": round(rates["ours"] / max(rates["processes"], rates["session"]), 3),
        "stronger_bare": max(SIDES[1:], key=lambda side: rates[side]),
        "pairs_per_second": {side: round(rate, 1) for side, rate in rates.items()},
        "pairs": pairs,
        "rounds": given.rounds,
        "batch_size": config.batch_size,
        "block_pairs": config.block_pairs,
        "largest_difference": off,
        "spread": spread,
        "sides": {side: ran[-1] for side, ran in figures.items()},
        "data": "simulated",
    }
    print_result(result, given.smallest)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    defaults = ScoreConfig()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=40_000, help="of the marketplace whose pairs are scored")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--block-pairs", type=int, default=defaults.block_pairs)
    parser.add_argument("--batch-size", type=int, default=defaults.batch_size)
    return parse_options(parser, arguments, {"rounds": 1, "block_pairs": 256})


if __name__ == "__main__":
    main()

"""The teacher's labels: our job against a bare vLLM loop and a batched transformers loop; a rerun that asks nothing.

**Speed.** All sides judge pairs of the built-in marketplace with one model and the same token ids; the model is a Qwen2
of about 6 M parameters with random weights, because speed does not depend on the weights, and because with so small a
model what the job adds to the engine shows most.

    side                what it does, each a process of its own; its clock runs after engine start
    ours                `ask` of the stage `label` with the engine vLLM, into a fresh ledger: tokenising and commits too
    ours_ray_data_llm   the same with label.vllm.through=ray.data.llm
    bare                one `LLM.generate` over all prompts, same engine and sampling arguments, vLLM's own threads
    bare_all_cores      the same with VLLM_CPU_OMP_THREADS_BIND=nobind and a thread a core
    transformers        padded batches of 64 of similar length, only the last logits, bfloat16 or float32 as is faster

Our rate is the one that the run's record states: answers after the first block, over the time since then and until Ray
is down. That is after engine start: vLLM answers first come first served, so when the first block is complete at most
one scheduler batch (256) of the others is under way. What piles up while Ray starts the step behind the engine would
flatter us; so the rate between the first commit to the ledger and the last is printed beside it, and the ratios are
taken with the smaller of the two. The answers of all sides are compared.

**Rerun.** `prectr label --force` over a ledger that answers all selected questions, from process start to exit, once
with the selection up to date (`rerun_seconds`) and once with the selection to be made; Ray must not start. The files
were just written, so they are read from memory.

    PRECTR_BENCH_DIR=FOLDER make bench-labelling
    .venv/bin/python tests/benchmarks/labelling.py --pairs 1500 --transformers-pairs 200 --entries 100000
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
from _labelling_rerun import command, make_rerun
from _labelling_world import World, make_world
from _logs import scratch_folder
from _measure import Cost, measured, median
from _smallest import parse_options, print_result

from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.artifacts import read_manifest

SCRIPT = Path(__file__).with_name("_labelling_sides.py")
SIDES = ("ours", "bare", "bare_all_cores", "transformers", "ours_ray_data_llm")
PAIRS, TRANSFORMERS_PAIRS, ENTRIES = 20_000, 2_000, 1_000_000
TOLERANCE = 0.02
"""Levels are computed in bfloat16."""
LEAST_SPREAD = 0.1
"""Standard deviation of a level over pairs, below which agreement would prove nothing."""
PATIENCE_SECONDS = 3600
"""A side that takes longer hangs."""
ALL_CORES = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(os.cpu_count())}
QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "TRANSFORMERS_VERBOSITY": "error"}
NO_RAY = {"RAY_ADDRESS": "127.0.0.1:1"}
"""Nobody listens there: a command that wants Ray hangs. And `confirm_above` is 0, which refuses any question."""


def patient(*arguments: str) -> list[str]:
    """A Python command that is ended if it hangs, or with the benchmark."""
    return ["timeout", "--foreground", str(PATIENCE_SECONDS), sys.executable, *arguments]


def run_side(side: str, world: World, pairs: int) -> dict[str, Any]:
    """Run one side; its figures, with the peak memory of its processes."""
    out = world.folder / side
    shutil.rmtree(out, ignore_errors=True)
    environment = os.environ | QUIET | (ALL_CORES if side == "bare_all_cores" else {})
    script = patient(str(SCRIPT), side.removesuffix("_all_cores"), str(world.folder), str(pairs), str(out))
    cost = measured(script, environment)
    figures: dict[str, Any] = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    return figures | {
        "process_seconds": round(cost.seconds, 1),
        "cpu_seconds": round(cost.cpu_seconds, 1),
        "peak_gib": round(cost.peak_gib, 2),
    }


def measure_speed(folder: Path, pairs: int, transformers_pairs: int, rounds: int) -> dict[str, Any]:
    """Run all sides, each second round in reverse; the figures."""
    world = make_world(folder, pairs)
    lengths = world.questions()["prompt_tokens"].list.len()
    print(f"{pairs:,} pairs, {lengths.min()} to {lengths.max()} tokens, {shared(world)} shared", file=sys.stderr)
    figures: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for turn in range(rounds):
        for side in SIDES if turn % 2 == 0 else SIDES[::-1]:
            figures[side].append(run_side(side, world, transformers_pairs if side == "transformers" else pairs))
            print(f"round {turn + 1}, {side}: {figures[side][-1]}", file=sys.stderr)
    off, spread = compare_answers(world)
    rates = {side: statistics.median(one["pairs_per_second"] for one in figures[side]) for side in SIDES}
    between = statistics.median(one["between_commits_per_second"] for one in figures["ours"])
    ours = min(rates["ours"], between)
    return {
        "ratio_to_bare": round(ours / rates["bare"], 3),
        "ratio_to_transformers": round(ours / rates["transformers"], 3),
        "ratio_to_bare_all_cores": round(ours / rates["bare_all_cores"], 3),
        **{f"{side}_pairs_per_second": round(rate, 2) for side, rate in rates.items()},
        "ours_between_commits_per_second": round(between, 2),
        "pairs": pairs,
        "transformers_pairs": transformers_pairs,
        "rounds": rounds,
        "prompt_tokens": {"shared": shared(world), "median": lengths.median(), "longest": lengths.max()},
        "largest_level_difference": off,
        "level_spread": spread,
        "sides": {side: of_side[-1] for side, of_side in figures.items()},
    }


def shared(world: World) -> int:
    """Tokens with which all prompts begin."""
    prompts = world.questions()["prompt_tokens"]
    first, longest = prompts.to_list(), int(prompts.list.len().min())  # type: ignore[arg-type]
    same = (np.array([ids[:longest] for ids in first]) == first[0][:longest]).all(axis=0)
    return longest if same.all() else int(same.argmin())


def compare_answers(world: World) -> tuple[dict[str, float], float]:
    """The largest difference of a level between bare and each other side, and the spread of levels over pairs.

    Raises:
        SystemExit: a pair has no answer, sides differ by more than number formats explain, or all pairs have the same
            answer, so that nothing was compared.
    """
    answers = {side: pl.read_parquet(world.folder / side / "answers.parquet") for side in SIDES}
    bare = answers.pop("bare")
    spread = float(bare.select(pl.col(LEVEL_COLUMNS).std()).max_horizontal().item())
    if spread < LEAST_SPREAD:
        raise SystemExit(f"the levels' standard deviation over pairs is {spread:.3f}: answers are all alike")
    largest = {}
    for side, found in answers.items():
        both = found.join(bare, on="key", how="inner", suffix="_bare")
        if len(both) != len(found) or (side != "transformers" and len(both) != len(bare)):
            raise SystemExit(
                f"{side}: {len(found):,} answers, of which {len(both):,} are among the {len(bare):,} asked"
            )
        off = both.select(LEVEL_COLUMNS).to_numpy() - both.select(f"{name}_bare" for name in LEVEL_COLUMNS).to_numpy()
        largest[side] = round(float(np.abs(off).max()), 5)
        if largest[side] > TOLERANCE:
            raise SystemExit(f"{side}: a level differs by {largest[side]} from the bare loop's")
    return largest, round(spread, 3)


def measure_rerun(folder: Path, entries: int, rounds: int) -> dict[str, Any]:
    """Time the command over a full ledger, with its selection to be made and with it up to date; the figures.

    Raises:
        SystemExit: it asked something.
    """
    work = folder / f"labelling-rerun-{entries}"
    make_rerun(work, entries)
    costs: dict[str, list[Cost]] = {"with_selecting": [], "rerun": []}
    for turn in range(rounds):
        shutil.rmtree(work / "labels-selection")
        for name, of_name in costs.items():
            of_name.append(measured(patient(*command(work, entries)), os.environ | NO_RAY))
            print(f"round {turn + 1}, {name}: {of_name[-1]}", file=sys.stderr)
            rows = (read_manifest(work / "labels") or {})["rows"]
            if (rows["asked"], rows["from_ledger"], rows["questions"]) != (0, entries, entries):
                raise SystemExit(f"not a rerun: {rows}")
    medians = {name: median(of_name) for name, of_name in costs.items()}
    return {
        "rerun_ratio_to_selecting": round(medians["rerun"].seconds / medians["with_selecting"].seconds, 3),
        "rerun_seconds": round(medians["rerun"].seconds, 2),
        "rerun_with_selecting_seconds": round(medians["with_selecting"].seconds, 2),
        "rerun_peak_gib": round(max(cost.peak_gib for cost in medians.values()), 2),
        "rerun_entries": entries,
        "rerun": medians["rerun"].to_json(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--transformers-pairs", type=int, default=TRANSFORMERS_PAIRS)
    parser.add_argument("--entries", type=int, default=ENTRIES, help="of the ledger that the rerun finds")
    parser.add_argument("--rounds", type=int, default=1)
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--speed-only", action="store_true")
    only.add_argument("--rerun-only", action="store_true")
    given = parse_options(parser, arguments, {"pairs": 100, "transformers_pairs": 20, "entries": 500})
    print(
        "labelling: our job vs a bare vLLM loop and a transformers loop, after engine start (a 6 M Qwen2 with random "
        "weights: speed does not depend on them, and so small a model shows best what the job adds); and a rerun"
    )
    figures: dict[str, Any] = {}
    with scratch_folder() as folder:
        folder.mkdir(parents=True, exist_ok=True)
        if not given.rerun_only:
            figures |= measure_speed(folder, given.pairs, given.transformers_pairs, given.rounds)
        if not given.speed_only:
            figures |= measure_rerun(folder, given.entries, given.rounds)
    print_result(figures | {"rounds": given.rounds, "data": "simulated"}, given.smallest)


if __name__ == "__main__":
    main()

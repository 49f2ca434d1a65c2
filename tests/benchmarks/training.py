"""How fast rankers train: against FuxiCTR, against a bare loop, against matmul; and a table of ten million rows.

    section   what is compared
    deepfm    our DeepFM with its training step against FuxiCTR 2.3.10's, put together from its layers in an environment
              of its own with the same torch: 26 fields x 20,000 ids (Zipf), width 16, MLP 256-128, batches of 4096, one
              thread; the same rows in the same order. The clock holds batches too: both sides cut them from arrays in
              memory, ours as `train` does, FuxiCTR's as its collator does. Samples per processor second of the training
              steps, and AUC on test rows by seed. FuxiCTR has its usual Adam without regularisation;
              one pass over the rows, at a constant rate on both sides
    loop      `Run`, the training loop (without Ray Train around it), against a bare PyTorch loop over tensors in
              memory: the same model, batches, distinct pairs encoded, fused AdamW. Samples per second of the steps, and
              of the whole run without validation and without reading rows; the ratio is the lower of the two. The same
              of the whole run by processor seconds (`ratio_of_cpu_seconds`), for a machine that others use too
    encoder   the encoder in joint training of prectr-v2: padding, pairs encoded a batch, share of the step, and the
              rate of its matrix products (FLOPs of real tokens, forward and backward) over that of torch's matmul on
              the same shapes; the same of the encoder as a whole
    tables    DeepFM with 10 M ids in one field: peak memory, steps a second, seconds to write a checkpoint

`loop` and `encoder` train on the built-in marketplace, taken through the jobs once (a small teacher and few epochs:
speed does not depend on weights). Each side is a process of its own; rounds are interleaved, figures are medians.

    PRECTR_BENCH_DIR=FOLDER make bench-training
    .venv/bin/python tests/benchmarks/training.py --only deepfm --rows 200000 --seeds 1
    .venv/bin/python tests/benchmarks/training.py --only encoder --variants --requests 6000
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

from _logs import scratch_folder
from _measure import measured
from _quality_world import World
from _smallest import parse_options, print_result
from _training_deepfm import measure_deepfm
from _training_world import quick_world

from prectr.contracts.model_config import ModelConfig, ModelName
from prectr.training.config import TrainConfig

HERE = Path(__file__).parent
SECTIONS = ("deepfm", "loop", "encoder", "tables")
LOOP_MODELS: tuple[ModelName, ...] = ("wide-deep", "prectr-v2")
SMALLEST_STEP = 11
"""At the smallest size, every so many of the encoder's variants: one at least of each kernel and number format."""
LOSS_TOLERANCE = 0.01
"""Both loops must have done the same work: their mean losses of the first epoch agree to this share."""


def run_script(script: str, out: Path, *arguments: str) -> dict[str, Any]:
    """Run one side in a process of its own; its figures, with its peak memory."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    cost = measured([sys.executable, str(HERE / script), *arguments, str(out)], os.environ)
    figures: dict[str, Any] = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    return figures | {"peak_gib": round(cost.peak_gib, 2)}


def config_of(model: ModelName, threads: int, epochs: int) -> TrainConfig:
    """The defaults of `train`."""
    return TrainConfig(model=ModelConfig(name=model), cpus=threads, epochs=epochs, evaluations_per_epoch=1)


def measure_loop(folder: Path, world: World, threads: int, rounds: int, epochs: int) -> dict[str, Any]:
    """Our loop and the bare one, in turn, for each model.

    Raises:
        SystemExit: their losses differ: they did not do the same work.
    """
    figures: dict[str, Any] = {}
    for model in LOOP_MODELS:
        config = config_of(model, threads, epochs).model_dump_json()
        ran: dict[str, list[dict[str, Any]]] = {"ours": [], "bare": []}
        for turn in range(rounds):
            for side in list(ran)[:: 1 if turn % 2 == 0 else -1]:
                arguments = (side, str(world.samples), str(world.encoder), config)
                ran[side].append(run_script("_training_loop.py", folder / f"loop-{side}", *arguments))
                print(f"loop, {model}, round {turn + 1}, {side}: {ran[side][-1]}", file=sys.stderr)
        losses = {side: of_side[-1]["loss"] for side, of_side in ran.items()}
        if abs(losses["ours"] / losses["bare"] - 1) > LOSS_TOLERANCE:
            raise SystemExit(f"{model}: the mean losses differ: {losses}")
        bare = _median(ran["bare"], "samples_per_second")
        rates = {
            name: _median(ran["ours"], name)
            for name in ("samples_per_second", "whole_run_per_second", "with_reading_per_second")
        }
        figures[model] = {
            "ratio": round(min(rates["samples_per_second"], rates["whole_run_per_second"]) / bare, 3),
            "ratio_of_steps": round(rates["samples_per_second"] / bare, 3),
            "ratio_of_whole_run": round(rates["whole_run_per_second"] / bare, 3),
            "ratio_of_cpu_seconds": round(
                _median(ran["ours"], "whole_run_per_cpu_second") / _median(ran["bare"], "samples_per_cpu_second"), 3
            ),
            "bare_per_second": round(bare),
            **{f"ours_{name}": round(rate) for name, rate in rates.items()},
            "loss": losses,
            "peak_gib": {side: of_side[-1]["peak_gib"] for side, of_side in ran.items()},
        }
    return {"ratio": min(of_model["ratio"] for of_model in figures.values()), **figures}


def _median(ran: list[dict[str, Any]], name: str) -> float:
    return statistics.median(one[name] for one in ran)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the figures."""
    given = _options(arguments)
    print(__doc__.split("\n", 1)[0])
    figures: dict[str, Any] = {}
    with scratch_folder() as folder:
        folder.mkdir(parents=True, exist_ok=True)
        if "deepfm" in given.only:
            figures["deepfm"] = measure_deepfm(folder, given.rows, given.test_rows, given.seeds, given.smallest)
        if {"loop", "encoder"} & set(given.only):
            world = quick_world(folder, given.requests, smallest=given.smallest)
        if "loop" in given.only:
            figures["loop"] = measure_loop(folder, world, given.threads, given.rounds, given.epochs)
        if "encoder" in given.only:
            config = config_of("prectr-v2", given.threads, 1).model_dump_json()
            variants = int(given.variants) * (SMALLEST_STEP if given.smallest else 1)
            sides = (str(world.samples), str(world.encoder), config, str(given.steps), str(variants))
            figures["encoder"] = run_script("_training_encoder.py", folder / "encoder-figures", *sides)
        if "tables" in given.only:
            table = (str(given.table_rows), str(given.table_steps))
            figures["tables"] = run_script("_training_tables.py", folder / "tables-figures", *table)
            shutil.rmtree(folder / "tables-figures")
    ratios = {
        "ratio_to_fuxictr": figures.get("deepfm", {}).get("ratio"),
        "ratio_to_bare_loop": figures.get("loop", {}).get("ratio"),
        "ratio_to_matmul": figures.get("encoder", {}).get("ratio_to_matmul"),
    }
    measured_ratios = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    print_result(measured_ratios | figures | {"threads": given.threads, "data": "simulated"}, given.smallest)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--threads", type=int, default=1, help="torch threads of `loop` and `encoder`")
    parser.add_argument("--rounds", type=int, default=3, help="of `loop`")
    parser.add_argument("--epochs", type=int, default=1, help="of `loop`")
    parser.add_argument("--requests", type=int, default=20_000, help="of the marketplace; about ten rows each")
    parser.add_argument("--steps", type=int, default=12, help="batches of `encoder`")
    parser.add_argument("--variants", action="store_true", help="`encoder`: also other kernels, sizes, number formats")
    parser.add_argument("--rows", type=int, default=2_000_000, help="of `deepfm`")
    parser.add_argument("--test-rows", type=int, default=200_000, help="of `deepfm`")
    parser.add_argument("--seeds", type=int, default=3, help="of `deepfm`")
    parser.add_argument("--table-rows", type=int, default=10_000_000)
    parser.add_argument("--table-steps", type=int, default=200)
    return parse_options(
        parser,
        arguments,
        {
            "rounds": 1,
            "steps": 2,
            "variants": True,
            "rows": 20_000,
            "test_rows": 2_000,
            "seeds": 1,
            "table_rows": 10_000,
            "table_steps": 2,
        },
    )


if __name__ == "__main__":
    main()

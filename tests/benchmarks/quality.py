"""Does PRECTR-V2 do what it is for? Rankers, ablations and open choices on the simulated marketplace, several seeds.

One log is simulated and taken through the pipeline once (teacher, labels, encoder, mining, samples); then every variant
is trained once for each seed and judged on the test day. Seeds are those of training: differences between variants are
paired by seed, and a gap is called real where it exceeds twice its standard error. What is judged against the
simulator's truth says so below. A second log with equal tolerances (`--placebo`) shows what must not help there.

    figure                      meaning (test day)
    SLICE.auc, SLICE.gauc       clicks, score at the logged position; slices: all, cold (at most 3 earlier requests),
                                warm, active (10 or more), explore (randomised requests)
    SLICE.auc_free, ...         the same with the position-free score, as served
    SLICE.truth_free            Spearman of the position-free score and the true click probability when examined
    candidates.ndcg_click       NDCG@10 of shown and unexposed candidates of a request together; gain: that probability
    candidates.ndcg_grade       the same; gain: 2^true grade - 1
    candidates.unexposed_*      unexposed candidates alone: Spearman with the truth; mean predicted over mean true rate
    tolerance.BUCKET            Spearman of the implied tolerance (MODEL.md 3b) and the true one, users by requests
    judged.*                    levels by text alone (no look-up) on judged pairs of queries held back from training
    closed                      share of the gap in all.auc from Wide&Deep to the truth itself that the model closes

Every result is kept in FOLDER/results.jsonl, so a run that was killed goes on; the last line is one JSON object.

    PRECTR_BENCH_DIR=FOLDER make bench-quality
    .venv/bin/python tests/benchmarks/quality.py --scale small --seeds 2 --groups table
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from _logs import scratch_folder
from _quality_variants import GROUPS, Variant, variants_of
from _quality_world import World, make_world

from prectr.artifacts import write_json

MODELS_FOLDER = "models"
LOWER_IS_BETTER = ("logloss", "ece", "judged.logloss", "candidates.irrelevant_on_top")
BASE, TOP = "wide-deep", "oracle"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, then summarise."""
    options = _options(arguments)
    folder = options.folder or scratch_folder() / f"quality-{options.scale}"
    worlds = {
        name: make_world(folder / name, *_settings(options, name))
        for name in sorted({variant.world for variant in variants_of(options.groups)})
    }
    results = folder / "results.jsonl"
    for seed in range(options.seeds):
        for variant in variants_of(options.groups):
            if (variant.name, seed) not in _done(results):
                _run(variant, seed, worlds[variant.world], results, options)
    summary = summarise(_read(results), variants_of(options.groups), options.seeds)
    if options.out:
        write_json(options.out, summary)
    print(json.dumps(summary))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="medium", help="small, medium or large")
    parser.add_argument("--log-seed", type=int, default=7, help="of the simulated log")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each variant")
    parser.add_argument("--groups", nargs="+", default=list(GROUPS), choices=list(GROUPS))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, default=None, help="worlds and results; goes on where it was")
    parser.add_argument("--out", type=Path, default=None, help="also write the summary here")
    return parser.parse_args(arguments)


def _settings(options: argparse.Namespace, world: str) -> list[str]:
    settings = [f"simulate.scale={options.scale}", f"simulate.seed={options.log_seed}", "samples.online=false"]
    return [*settings, "simulate.placebo=true"] if world == "placebo" else settings


def _run(variant: Variant, seed: int, world: World, results: Path, options: argparse.Namespace) -> None:
    """Train and judge one variant once, and keep its line."""
    started = time.perf_counter()
    figures = _figures(variant, seed, world, options.threads)
    line = {
        "variant": variant.name,
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 1),
        "figures": {name: round(value, 6) for name, value in figures.items()},
    }
    with results.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
    shown = {
        name: round(figures[name], 4) for name in ("all.auc", "all.gauc", "all.truth_free", "candidates.ndcg_click")
    }
    print(f"{variant.name}, seed {seed}: {line['seconds']} s {shown}", file=sys.stderr, flush=True)


def _figures(variant: Variant, seed: int, world: World, threads: int) -> dict[str, float]:
    import torch
    from _quality_figures import all_figures, oracle_figures, ranking_figures

    torch.set_num_threads(threads)
    day, load = _test_day(world), _loader(world)
    if variant.name.endswith(TOP):
        return oracle_figures(day)
    if variant.train is None:
        from _quality_lightgbm import logits, train

        booster, facts = train(*load.split, seed, threads)
        shown = day.shown
        scores = (logits(booster, *at) for at in ((shown, 1), (shown, shown.position), (day.candidates, 1)))
        return ranking_figures(day, *scores) | facts
    config = variant.train.model_copy(update={"seed": 17 + seed, "cpus": threads})
    with tempfile.TemporaryDirectory() as out:
        run = load.run(config, world.folder / variant.encoder, Path(out))
        facts = run.run()
    spent = {"step_seconds": facts["step_seconds"], "rows_per_second": facts["step_rows"] / facts["step_seconds"]}
    return all_figures(day, run.step) | {"best_step": float(facts["best"]["step"])} | spent


@cache
def _test_day(world: World) -> Any:
    from _quality_figures import TestDay

    return TestDay(_loader(world).samples, world.tables)


@cache
def _loader(world: World) -> Any:
    from _quality_runs import Loader

    return Loader(world)


def _done(results: Path) -> set[tuple[str, int]]:
    return {(line["variant"], line["seed"]) for line in _read(results)}


def _read(results: Path) -> list[dict[str, Any]]:
    if not results.is_file():
        return []
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


def summarise(lines: Sequence[dict[str, Any]], variants: Sequence[Variant], seeds: int) -> dict[str, Any]:
    """Mean and spread of every figure, and the paired gaps of each variant to the one it is compared with.

    Args:
        lines: of results.jsonl.
        variants: those to tell about.
        seeds: the first so many.
    """
    found = {(line["variant"], line["seed"]): line for line in lines if line["seed"] < seeds}
    told: dict[str, Any] = {}
    for variant in variants:
        own = [found[variant.name, seed] for seed in range(seeds) if (variant.name, seed) in found]
        names = sorted({name for line in own for name in line["figures"]})
        figures = {name: [line["figures"][name] for line in own if name in line["figures"]] for name in names}
        told[variant.name] = {
            "seeds": len(own),
            "seconds": round(statistics.mean(line["seconds"] for line in own), 1) if own else None,
            "mean": {name: round(statistics.mean(values), 5) for name, values in figures.items()},
            "deviation": {
                name: round(statistics.stdev(values), 5) if len(values) > 1 else None
                for name, values in figures.items()
            },
            "against": variant.against,
            "gaps": _gaps(found, variant, seeds) if variant.against else {},
            "what": variant.what,
            "settings": None if variant.train is None else variant.train.model_dump(mode="json", exclude_defaults=True),
        }
    _add_closed(told)
    v2, base = (told.get(name, {}).get("mean", {}).get("all.auc") for name in ("prectr-v2", BASE))
    ratio = told.get("prectr-v2", {}).get("mean", {}).get("closed")
    return {"closed": ratio, "v2_auc": v2, "wide_deep_auc": base, "seeds": seeds, "data": "simulated", "variants": told}


def _gaps(found: dict[tuple[str, int], dict[str, Any]], variant: Variant, seeds: int) -> dict[str, Any]:
    """Variant minus what it is compared with, paired by seed: mean, standard error, and whether it is real."""
    pairs = [
        (found[variant.name, seed]["figures"], found[variant.against, seed]["figures"])
        for seed in range(seeds)
        if (variant.name, seed) in found and (variant.against, seed) in found
    ]
    made = {}
    for name in sorted(set.intersection(*({*one} & {*other} for one, other in pairs))) if pairs else []:
        differences = [one[name] - other[name] for one, other in pairs]
        mean = statistics.mean(differences)
        error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else None
        made[name] = {
            "mean": round(mean, 5),
            "standard_error": None if error is None else round(error, 5),
            "real": None if error is None else bool(abs(mean) > 2 * error),
        }
    return made


def _add_closed(told: dict[str, Any]) -> None:
    """Share of the gap in AUC from Wide&Deep to the truth that each model closes."""
    if not all(told.get(name, {}).get("mean") for name in (BASE, TOP)):
        return
    low, high = (told[name]["mean"]["all.auc"] for name in (BASE, TOP))
    for entry in told.values():
        if "all.auc" in entry["mean"] and high > low:
            entry["mean"]["closed"] = round((entry["mean"]["all.auc"] - low) / (high - low), 4)


if __name__ == "__main__":
    main()

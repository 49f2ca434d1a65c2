"""Does PRECTR-V2 do what it is for? Rankers, ablations and open choices on the simulated marketplace, several seeds.

One log is simulated and taken through the pipeline once (teacher, labels, encoder, mining, samples); then every variant
is trained once for each seed and judged on the test day. Seeds are those of training: differences between variants are
paired by seed, and a gap is called real where it exceeds twice its standard error. What is judged against the
simulator's truth says so below. A second log with equal tolerances (`--placebo`) shows what must not help there.

    figure                      meaning (test day)
    SLICE.auc, SLICE.gauc       clicks, score at the logged position; slices: all, cold (at most 3 earlier requests),
                                warm, active (10 or more), explore (randomised requests)
    SLICE.gauc_error            standard error of that GAUC, the users of the day taken as a sample
    SLICE.auc_free, ...         the same with the position-free score, as served
    SLICE.truth_free            Spearman of the position-free score and the true click probability when examined
    candidates.ndcg_click       NDCG@10 of shown and unexposed candidates of a request together; gain: that probability
    candidates.ndcg_grade       the same; gain: 2^true grade - 1
    candidates.unexposed_*      unexposed candidates alone: Spearman with the truth; mean predicted over mean true rate
    tolerance.BUCKET            Spearman of the implied tolerance and the true one, users by requests; it is
                                implied by the level heads, after tau, as log mean(c_1, c_2) - log c_3
    tolerance_if.BUCKET         the same, from what the model says were the row of another relevance
    threshold_if.BUCKET         that, with the whole true threshold of the rows: the user's part and the query's
    judged.*                    levels by text alone (no look-up) on judged pairs of queries held back from training
    student.*                   the encoder's expected level beside the true relevance, over distinct pairs of the test
                                day that have no judgment or label: `unexposed` candidates and `shown` pairs
    closed                      share of the gap in all.auc from Wide&Deep to the truth itself that the model closes
    closed_of_knowable          the same to the observer of `_quality_observer.py`, who knows what clicks can tell

Every result is kept in FOLDER/results.jsonl, so a run that was killed goes on. The last line is one JSON object; its
ratio is V2's all.auc over Wide&Deep's.
Several trainings run at a time, each on its own thread: a small ranker does not gain from a second one.

    PRECTR_BENCH_DIR=FOLDER make bench-quality
    .venv/bin/python tests/benchmarks/quality.py --scale small --seeds 2 --groups table
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

from _logs import scratch_folder
from _quality_changed import CHANGES, make_changed
from _quality_tables import CALIBRATION, COLUMNS, SAMPLING, STUDENT, TOLERANCE
from _quality_variants import FEW_SEEDS, GROUPS, LADDER, Variant, variants_of
from _quality_world import World, make_world, world_of
from _smallest import SETTINGS as SMALLEST_SETTINGS
from _smallest import parse_options, print_result

from prectr.core.artifacts import write_json
from prectr.core.ray_session import ray_session

TOLD = {figure for columns in (*COLUMNS.values(), *TOLERANCE, STUDENT, CALIBRATION, SAMPLING) for figure in columns}
"""The figures of the summary; results.jsonl has all."""
BASE, TOP, OBSERVER = "wide-deep", "oracle", "observer"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, then summarise."""
    options = _options(arguments)
    given = list(arguments if arguments is not None else sys.argv[1:])
    if options.folder:
        _run_all(options.folder, options, given)
    else:
        with scratch_folder() as folder:
            _run_all(folder / ("smallest" if options.smallest else f"quality-{options.scale}"), options, given)


def _run_all(folder: Path, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    wanted = sorted({variant.world for variant in _chosen(options)})
    with nullcontext() if options.claims else ray_session():  # one for all worlds
        worlds = {name: _make(folder, name, options) for name in wanted}
    results = folder / "results.jsonl"
    if options.claims:
        _work(worlds, results, options)
        return
    if options.smallest:
        results.unlink(missing_ok=True)
    _share_work(results, arguments, options)
    summary = summarise(_read(results), variants_of(options.groups), options.seeds)
    if options.out:
        write_json(options.out, summary)
    print_result(summary, options.smallest)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="medium", help="small, medium or large")
    parser.add_argument("--log-seed", type=int, default=7, help="of the simulated log")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each variant")
    parser.add_argument(
        "--groups", nargs="+", default=[name for name in GROUPS if name != "catalogue"], choices=list(GROUPS)
    )
    parser.add_argument("--only", nargs="+", default=(), metavar="VARIANT", help="of the groups, train these only")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trainings at a time")
    parser.add_argument("--claims", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=None, help="worlds and results; goes on where it was")
    parser.add_argument("--out", type=Path, default=None, help="also write the summary here")
    parser.add_argument("--catalogue", type=Path, default=None, help="validated tables of real text, for `catalogue`")
    options = parse_options(parser, arguments, {"scale": "small", "seeds": 1, "only": _one_of_each()})
    if "catalogue" in options.groups and not options.catalogue:
        parser.error("the group `catalogue` needs --catalogue: tables with items and judgments, as of `prectr import`.")
    return options


def _share_work(results: Path, arguments: Sequence[str], options: argparse.Namespace) -> None:
    """Let processes of this very command run what is missing, each taking the next that nobody has claimed."""
    with tempfile.TemporaryDirectory(dir=results.parent) as claims:
        command = [sys.executable, __file__, *arguments, "--folder", str(results.parent), "--claims", claims]
        workers = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(options.jobs)]
        if any([worker.wait() for worker in workers]):
            raise SystemExit("quality: a worker failed; its error is above. What is finished is kept: run it again.")


def _work(worlds: dict[str, World], results: Path, options: argparse.Namespace) -> None:
    done = {(line["variant"], line["seed"]) for line in _read(results)}
    for seed in range(options.seeds):
        for variant in _chosen(options):
            if seed >= variant.seeds or (variant.name, seed) in done:
                continue
            try:
                (options.claims / f"{variant.name}-{seed}").touch(exist_ok=False)
            except FileExistsError:
                continue
            _run(variant, seed, worlds[variant.world], results)


def _one_of_each() -> list[str]:
    """Variants that run all code: one of each kind, way to make samples and start of the encoder, and the ladder's.

    One strength of `levels-SHARE` stands for all.
    """
    usual = variants_of([name for name in GROUPS if name != "catalogue"])
    first = {
        (variant.kind, variant.world.rstrip(".0123456789"), variant.encoder): variant.name
        for variant in reversed(usual)
    }
    return sorted({*first.values(), *(name for step in LADDER for name in step)})


def _chosen(options: argparse.Namespace) -> list[Variant]:
    variants = variants_of(options.groups)
    return [variant for variant in variants if variant.name in options.only] if options.only else variants


def _make(folder: Path, name: str, options: argparse.Namespace) -> World:
    """`log`, `placebo` or `catalogue`, by the way of its samples: `ids` is the log's with ids."""
    base, _, way = name.partition("-") if name.split("-")[0] in ("log", "placebo", "catalogue") else ("log", "", name)
    suffix = f"-{way}" if way else ""
    if options.claims:  # a worker: the command that started it has made all
        return world_of(folder / base, suffix)
    settings = [f"simulate.seed={options.log_seed}", f"simulate.scale={options.scale}"]
    settings += SMALLEST_SETTINGS if options.smallest else ("samples.online=false",)  # others share the smallest log
    if base == "placebo":
        settings.append("simulate.placebo=true")
    if way in CHANGES:
        return make_changed(make_world(folder / base, settings), way)
    return make_world(folder / base, settings, suffix, options.catalogue if base == "catalogue" else None)


def _run(variant: Variant, seed: int, world: World, results: Path) -> None:
    """Train and judge one variant once, and keep its line."""
    started = time.perf_counter()
    figures = _figures(variant, seed, world)
    line = {
        "variant": variant.name,
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 1),
        "figures": {name: round(value, 6) for name, value in figures.items()},
    }
    with results.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
    told = ("all.auc", "all.gauc", "all.truth_free", "candidates.unexposed_spearman")
    shown = {name: round(figures[name], 4) for name in told if name in figures}
    print(f"{variant.name}, seed {seed}: {line['seconds']} s {shown}", file=sys.stderr, flush=True)


def _figures(variant: Variant, seed: int, world: World) -> dict[str, float]:
    import torch
    from _quality_figures import all_figures, observer_figures, oracle_figures, ranking_figures, student_figures

    torch.set_num_threads(1)
    day, load = _test_day(world), _loader(world)
    if variant.kind == "oracle":
        return oracle_figures(day)
    if variant.kind == "student":
        return student_figures(day)
    if variant.kind == "observer":
        return observer_figures(day, world.tables)
    if variant.kind == "lightgbm":
        from _quality_lightgbm import logits, train

        booster, facts = train(*load.split, world.tables, seed, 1)
        shown = day.shown
        scores = (
            logits(booster, *at, world.tables) for at in ((shown, 1), (shown, shown.position), (day.candidates, 1))
        )
        return ranking_figures(day, *scores) | facts
    assert variant.train is not None
    config = variant.train.model_copy(update={"seed": 17 + seed, "cpus": 1})
    with tempfile.TemporaryDirectory() as out:
        run = load.run(config, variant.encoder, Path(out))
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
        names = sorted({name for line in own for name in line["figures"]} & TOLD)
        figures = {name: [line["figures"][name] for line in own if name in line["figures"]] for name in names}
        told[variant.name] = {
            "seeds": len(own),
            "seconds": round(statistics.mean(line["seconds"] for line in own), 1) if own else None,
            "mean": {name: round(statistics.mean(values), 5) for name, values in figures.items()},
            "deviation": {
                name: round(statistics.stdev(values), 5) if len(values) > 1 else None
                for name, values in figures.items()
            },
            "world": variant.world,
            "against": variant.against,
            "gaps": _gaps(found, variant.name, variant.against, seeds) if variant.against else {},
            "what": variant.what,
            "settings": None if variant.train is None else variant.train.model_dump(mode="json", exclude_defaults=True),
        }
    _add_closed(told)
    v2, base = (told.get(name, {}).get("mean", {}).get("all.auc") for name in ("prectr-v2", BASE))
    closed = told.get("prectr-v2", {}).get("mean", {})
    return {
        "ratio": round(v2 / base, 5) if v2 and base else None,
        "closed": closed.get("closed"),
        "closed_of_knowable": closed.get("closed_of_knowable"),
        "v2_auc": v2,
        "wide_deep_auc": base,
        "seeds": seeds,
        "data": "simulated",
        "ladder": [
            {"variant": name, "against": against, "gaps": _gaps(found, name, against, seeds)}
            for name, against in LADDER
        ],
        "variants": told,
    }


def _gaps(found: dict[tuple[str, int], dict[str, Any]], name: str, against: str, seeds: int) -> dict[str, Any]:
    """A variant minus what it is compared with, paired by seed: mean, standard error, and whether it is real.

    Two seeds' standard error says too little for that.
    """
    pairs = [
        (found[name, seed]["figures"], found[against, seed]["figures"])
        for seed in range(seeds)
        if (name, seed) in found and (against, seed) in found
    ]
    made = {}
    for figure in sorted(set.intersection(*({*one} & {*other} & TOLD for one, other in pairs))) if pairs else []:
        differences = [one[figure] - other[figure] for one, other in pairs]
        mean = statistics.mean(differences)
        error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else None
        made[figure] = {
            "mean": round(mean, 5),
            "standard_error": None if error is None else round(error, 5),
            "real": None if error is None or len(pairs) < FEW_SEEDS else bool(abs(mean) > 2 * error),
        }
    return made


def _add_closed(told: dict[str, Any]) -> None:
    """Share of the gap in AUC from Wide&Deep to the truth, and to the observer, that each model closes."""
    for name, top in (("closed", TOP), ("closed_of_knowable", OBSERVER)):
        if not all(told.get(end, {}).get("mean") for end in (BASE, top)):
            continue
        low, high = (told[end]["mean"]["all.auc"] for end in (BASE, top))
        for entry in told.values():
            if entry["world"] == "log" and "all.auc" in entry["mean"] and high > low:
                entry["mean"][name] = round((entry["mean"]["all.auc"] - low) / (high - low), 4)


if __name__ == "__main__":
    main()

"""The unit costs of `prectr plan`: bytes, processor seconds and memory a unit, measured and written to its data file.

Two logs of the `large` marketplace, the second four times the first, with a made-up relevance. What a row costs is a
stage's processor time on the larger one, with all of its tasks in one process of one thread without Ray, whose own time
is not counted; fits and other fixed work are in it.
Texts, tokens, labels and training are measured on a world of the `small` marketplace taken through the jobs, with a
real encoder. Memory is the growth of a process that does nothing else, by the difference of the logs where it can be. A
log of these sizes hardly repeats a key, so costs a row are on the high side. Figures of other benchmarks (serving,
relevance) stay in the data file as they are.

    PRECTR_BENCH_DIR=FOLDER make bench-plan
    .venv/bin/python tests/benchmarks/plan.py --rows 400000 1600000 --questions 100000 300000 --dry

It takes a quarter of an hour on two cores; `--dry` leaves the data file alone. The ratio is the median, over the
figures, of what was measured now over what the data file held.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from _labelling_rerun import command, make_rerun
from _logs import Log, make_log, scratch_folder
from _measure import measured
from _quality_world import World
from _smallest import ROWS as SMALLEST_ROWS
from _smallest import parse_options, print_result
from _training_world import quick_world
from labelling import NO_RAY, QUIET
from training import config_of, run_script

from jobs.sizing.costs import FILE, read_unit_costs
from prectr.core.artifacts import read_manifest

SCRIPT = Path(__file__).with_name("_plan_structures.py")
BENCHMARK = "make bench-plan"
REQUESTS = 10_000
ONE_THREAD = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
HASHING_THREADS = 4
"""Of `prectr.core.artifacts.file_digests`."""


class Bench:
    """Runs things in processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "plan-work"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def run(self, what: str, *inputs: Path) -> dict[str, Any]:
        """One of `_plan_structures.py`; its figures."""
        command = [sys.executable, str(SCRIPT), what, str(self.folder), *map(str, inputs)]
        subprocess.run(command, env=os.environ | ONE_THREAD, stdout=sys.stderr, check=True)
        figures: dict[str, Any] = json.loads((self.folder / "figures.json").read_text(encoding="utf-8"))
        print(f"{what}: {figures}", file=sys.stderr)
        return figures

    def preferences(self, log: Log) -> Path:
        """Those of a log."""
        return self.folder / f"preferences-{log.rows}"

    def samples(self, log: Log) -> Path:
        """Those of a log."""
        return self.folder / f"samples-{log.rows}"


def of_logs(bench: Bench, logs: Sequence[Log]) -> dict[str, float]:
    """Mining and sampling: processor time and bytes of the larger log; the state by the difference of the two."""
    written, published = [], []
    for log in logs:
        preferences, samples = bench.preferences(log), bench.samples(log)
        mined = bench.run("mine", log.tables, log.relevance, preferences)
        written.append(bench.run("samples", log.tables, log.relevance, preferences, samples))
        published.append(bench.run("state", samples))
    large, state = logs[-1], published[-1]
    content = [sum(one["size"].values()) for one in published]

    def of_content(ran: Sequence[dict[str, Any]], figure: str) -> float:
        """Without what the profiles of users who were never seen and the items take: about the same in both."""
        return (ran[1][figure] - ran[0][figure]) / (content[1] - content[0])

    return {
        "tables_bytes_per_impression": size(large.tables / "impressions") / large.rows,
        "samples_bytes_per_impression": size(samples / "rows") / large.rows,
        "partial_bytes_per_impression": size(preferences / "days") / large.rows,
        "before_bytes_per_impression": (size(preferences / "before") + size(preferences / "centres")) / large.rows,
        "snapshot_bytes_per_impression": size(preferences / "snapshot") / large.rows,
        "mine_core_seconds_per_impression": mined["work_seconds"] / large.rows,
        "samples_core_seconds_per_impression": written[-1]["work_seconds"] / large.rows,
        "state_user_bytes_per_impression": state["size"]["user"] / large.rows,
        **{f"state_bytes_per_{kind}": state["size"][kind] / state["count"][kind] for kind in ("query", "item", "pair")},
        "state_file_per_content_byte": state["file"] / content[-1],
        "state_seconds_per_content_byte": written[-1]["state_seconds"] / content[-1],
        "state_writer_bytes_per_content_byte": of_content(written, "state_bytes"),
        "publish_bytes_per_content_byte": of_content(published, "bytes"),
    }


def of_structures(bench: Bench, logs: Sequence[Log]) -> dict[str, float]:
    """What is held or scanned whole: by the difference of two logs, which have the same items."""
    grown = {
        what: [bench.run(what, *inputs(log)) for log in logs]
        for what, inputs in {
            "choose_pairs": lambda log: [log.tables],
            "pairs_to_score": lambda log: [log.tables],
            "pair_index": lambda log: [log.relevance],
            "pair_tables": lambda log: [log.tables, log.relevance, bench.samples(log)],
            "day_tables": lambda log: [log.tables, log.relevance, bench.preferences(log)],
            "prior_clicks": lambda log: [bench.preferences(log)],
            "look_ups": lambda log: [log.relevance, bench.preferences(log)],
            "training_rows": lambda log: [bench.samples(log)],
            "queries_of_rows": lambda log: [bench.samples(log)],
        }.items()
    }

    def of_unit(what: str, unit: str, figure: str = "bytes") -> float:
        small, large = grown[what]
        return (large[figure] - small[figure]) / (large[unit] - small[unit])

    log = logs[-1]
    index, day = grown["pair_index"][-1], grown["day_tables"][-1]
    hashed = bench.run("hashing", log.tables)
    return {
        "select_bytes_per_pair": of_unit("choose_pairs", "pairs"),
        "layout_bytes_per_pair": of_unit("pairs_to_score", "pairs"),
        "index_building_bytes_per_pair": of_unit("pair_index", "pairs"),
        "index_bytes_per_pair": index["held"] / index["pairs"],
        "samples_driver_bytes_per_pair": of_unit("pair_tables", "pairs"),
        "prior_bytes_per_query": of_unit("prior_clicks", "queries"),
        "category_bytes_per_query": grown["prior_clicks"][-1]["category_bytes"],
        "day_pairs_bytes_per_pair": of_unit("day_tables", "pairs"),
        "day_users_bytes_per_user": day["user_bytes"],
        "samples_shuffle_bytes_per_impression": day["sent_bytes"],
        "lookup_core_seconds_per_pair_of_day": of_unit("day_tables", "pairs", "pair_seconds"),
        "lookup_core_seconds_per_pair": of_unit("look_ups", "pairs", "pair_seconds"),
        "lookup_core_seconds_per_query_day": of_unit("look_ups", "query_days", "query_seconds"),
        "train_bytes_per_row": of_unit("training_rows", "rows"),
        "evaluate_bytes_per_training_row": of_unit("queries_of_rows", "rows"),
        "hash_seconds_per_byte": hashed["hash_seconds"] / HASHING_THREADS / hashed["bytes"],
    }


def of_world(bench: Bench, world: World) -> dict[str, float]:
    """Real texts: tokens, labels, a distillation, a training."""
    held = bench.run("training_pairs", world.samples)
    relevance = world.folder / "relevance"
    asked = bench.run("prompts", world.folder)["relevance_v1"]
    labels = (read_manifest(world.folder / "labels") or {})["rows"]["questions"]
    config = config_of("prectr-v2", threads=1, epochs=1).model_dump_json()
    loop = run_script(
        "_training_loop.py", bench.folder / "loop", "ours", str(world.samples), str(world.encoder), config
    )
    distilled = bench.run("distil", world.tables, world.folder / "labels", bench.folder / "encoder")
    return {
        "relevance_bytes_per_pair": size(relevance) / held["pairs"],
        "samples_bytes_per_pair": sum(
            (world.samples / name).stat().st_size for name in ("pairs.parquet", "texts.parquet")
        )
        / held["pairs"],
        "train_bytes_per_pair": held["held"] / held["pairs"],
        "train_core_seconds_per_row": 1 / loop["whole_run_per_cpu_second"],
        "distill_core_seconds_per_pair": distilled["work_seconds"] / distilled["pairs"],
        "prompt_tokens_per_question": asked["tokens"],
        "prompt_shared_tokens": asked["shared"],
        "ledger_bytes_per_label": size(world.folder / "label-ledger", "labels-*.parquet") / labels,
    }


def of_questions(bench: Bench, folder: Path, world: World, questions: Sequence[int]) -> dict[str, float]:
    """The driver of `label` over a ledger that answers everything, by two of them, and that of `distill`."""
    peaks, laid_out = [], []
    for count in questions:
        work = folder / f"labelling-rerun-{count}"
        make_rerun(work, count)
        shutil.rmtree(work / "labels", ignore_errors=True)
        peaks.append(measured([sys.executable, *command(work, count)], os.environ | NO_RAY | QUIET).peak_gib * 2**30)
        print(f"{count:,} questions in the ledger: {peaks[-1] / 2**30:.2f} GiB", file=sys.stderr)
        laid_out.append(bench.run("distillation", work / "tables", work / "labels", world.encoder))
    few, many = laid_out
    return {
        "label_driver_bytes_per_question": (peaks[1] - peaks[0]) / (questions[1] - questions[0]),
        "distill_driver_bytes_per_pair": (many["bytes"] - few["bytes"]) / (many["pairs"] - few["pairs"]),
    }


def size(folder: Path, pattern: str = "*.parquet") -> int:
    """Bytes of the files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob(pattern))


def write(figures: dict[str, float], file: Path) -> None:
    """Put the figures into the data file; those of other benchmarks stay.

    Raises:
        SystemExit: a figure is not above 0 (a difference of two runs that noise swallowed), or not in the file.
    """
    bad = [name for name, value in figures.items() if not value > 0]
    if bad:
        raise SystemExit(f"not above 0, so nothing was written; measure with more rows: {', '.join(bad)}")
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    for name, cost in content["costs"].items():
        if cost["benchmark"] == BENCHMARK:
            cost["value"] = float(f"{figures.pop(name):.3g}")
    if figures:
        raise SystemExit(f"{file} has no place for {', '.join(figures)}")
    file.write_text(yaml.safe_dump(content, sort_keys=False, width=116, allow_unicode=True), encoding="utf-8")
    read_unit_costs(file)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs=2, default=(100_000, 400_000), help="of the two logs")
    parser.add_argument("--questions", type=int, nargs=2, default=(20_000, 60_000), help="of the two ledgers")
    parser.add_argument("--dry", action="store_true", help="leave the data file alone")
    smallest = {"rows": (SMALLEST_ROWS // 4, SMALLEST_ROWS), "questions": (500, 1_500), "dry": True}
    given = parse_options(parser, arguments, smallest)
    print("plan: bytes, processor seconds and memory a unit of every stage; compared with the data file's")
    with scratch_folder() as folder:
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(folder)
        logs = [make_log(folder, rows, given.smallest) for rows in given.rows]
        world = quick_world(folder, REQUESTS, "plan", smallest=given.smallest)
        figures = of_logs(bench, logs) | of_structures(bench, logs) | of_world(bench, world)
        figures |= of_questions(bench, folder, world, given.questions)
        shutil.rmtree(bench.folder)
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))["costs"]
    recorded = {name: cost["value"] for name, cost in content.items() if cost["benchmark"] == BENCHMARK}
    if not given.dry:
        write(dict(figures), FILE)
    ratio = statistics.median(figures[name] / cost for name, cost in recorded.items())
    rounded = {name: float(f"{value:.3g}") for name, value in figures.items()}
    print_result({"ratio_to_data_file": round(ratio, 3), **rounded, "data": "simulated"}, given.smallest)


if __name__ == "__main__":
    main()

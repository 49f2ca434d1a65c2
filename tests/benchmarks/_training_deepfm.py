"""Our DeepFM against FuxiCTR 2.3.10's: samples per processor second of the training steps, and AUC, by seed."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
from _measure import measured
from _training_clicks import CARDINALITY, FIELDS, Clicks, make_clicks
from sklearn.metrics import roc_auc_score

HERE = Path(__file__).parent
REQUIREMENTS = HERE.parents[1] / "requirements" / "bench-fuxictr.txt"
BATCH_SIZE = 4096
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
SETTINGS: dict[str, dict[str, float]] = {
    # The learning rate is the best of 1e-3, 2e-3, 3e-3, 4e-3, 5e-3 (ours also 7e-3), found with seed 1000, which is
    # not measured. FuxiCTR's embeddings spread at the start as ours (with its own, 1e-4, it ended with the same AUC).
    "ours": {"learning_rate": 5e-3, "table_rate_scale": 1.0},
    "fuxictr": {"learning_rate": 3e-3, "deviation": 0.05},
}


def fuxictr_environment(folder: Path) -> Path:
    """The Python of a virtual environment that holds FuxiCTR and sees our packages, torch above all."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "-r", str(REQUIREMENTS)], check=True)
        own = next(folder.glob("lib/python*/site-packages"))
        (own / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


def run_side(side: str, python: Path, data: Path, seed: int, **changed: float) -> dict[str, Any]:
    """Train one side with one seed; its figures and AUC on the test rows."""
    out = data / f"{side}-{seed}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    options = SETTINGS[side] | changed | {"seed": seed, "batch_size": BATCH_SIZE}
    script = HERE / f"_training_deepfm_{side}.py"
    cost = measured([str(python), str(script), str(data), str(out), json.dumps(options)], os.environ | ONE_THREAD)
    figures: dict[str, Any] = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    clicked = Clicks.load(data / "test.npz").clicked
    rate = figures["steps"] * BATCH_SIZE / figures["cpu_seconds"]
    auc = float(roc_auc_score(clicked, np.load(out / "scores.npy")))
    return figures | {"samples_per_cpu_second": rate, "auc": auc, "peak_gib": cost.peak_gib}


def measure_deepfm(folder: Path, rows: int, test_rows: int, seeds: int, smallest: bool = False) -> dict[str, Any]:
    """Run both sides in turn, once a seed; the figures.

    With `smallest`, nothing is installed: FuxiCTR's side runs if its environment is there from an earlier run.
    """
    data = folder / f"deepfm-{rows}-{test_rows}"
    if not (data / "test.npz").exists():
        data.mkdir(parents=True, exist_ok=True)
        make_clicks(data, rows, test_rows)
    pythons, environment = {"ours": Path(sys.executable)}, folder / "fuxictr-environment"
    if environment.exists() or not smallest:
        pythons["fuxictr"] = fuxictr_environment(environment)
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in pythons}
    for seed in range(seeds):
        for side in list(pythons)[:: 1 if seed % 2 == 0 else -1]:
            found[side].append(run_side(side, pythons[side], data, seed))
            print(f"deepfm, seed {seed}, {side}: {found[side][-1]}", file=sys.stderr)
    rates = {side: statistics.median(one["samples_per_cpu_second"] for one in ran) for side, ran in found.items()}
    aucs = {side: [one["auc"] for one in ran] for side, ran in found.items()}
    compared = (
        {
            "ratio": round(rates["ours"] / rates["fuxictr"], 3),
            "auc_difference": round(statistics.mean(aucs["ours"]) - statistics.mean(aucs["fuxictr"]), 5),
        }
        if "fuxictr" in pythons
        else {"left_out": f"FuxiCTR's side: {environment} is missing; the benchmark's usual size installs it"}
    )
    return {
        **compared,
        "samples_per_cpu_second": {side: round(rate) for side, rate in rates.items()},
        "auc": {side: [round(auc, 5) for auc in of_side] for side, of_side in aucs.items()},
        "auc_spread": {side: round(statistics.pstdev(of_side), 5) for side, of_side in aucs.items()},
        "peak_gib": {side: round(max(one["peak_gib"] for one in ran), 2) for side, ran in found.items()},
        "settings": SETTINGS,
        "rows": rows,
        "fields": FIELDS,
        "ids_a_field": CARDINALITY,
    }

"""Days without clicks: figures that need both classes are undefined, said as such, and stop nothing."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from jobs.distill import build_marked_encoder
from models.registry import build_ranker
from prectr.model_config import EncoderConfig, ModelConfig
from prectr.samples.load import Samples, split_days
from prectr.training.config import TrainConfig
from prectr.training.launch import read_curve
from prectr.training.ranker_loop import CURVE, STATE, Run
from prectr.training.sweep_config import SweepConfig
from prectr.training.sweep_trials import run_trial
from prectr.training.workers import Workers
from tests.prectr.test_ranker_loop import write_samples

CONFIG = TrainConfig(epochs=2, batch_size=16, text_batch=8, evaluations_per_epoch=1, precision="float32", cpus=1)
ENCODER = EncoderConfig(layers=1, width=8, heads=2, feed_forward=16, dropout=0.0)


def _without_clicks(laboratory: SimpleNamespace, path: Path, chosen: str) -> Path:
    """Samples whose training days or validation day hold no click."""
    write_samples(laboratory, path)
    training, validation, _ = split_days(Samples.open(path).days())
    for day in training if chosen == "training" else [validation]:
        for file in (path / "rows" / f"date={day}").glob("*.parquet"):
            pl.read_parquet(file).with_columns(clicked=pl.lit(False)).write_parquet(file)
    return path


def _build(config: ModelConfig, spec: Any, encoder: Path) -> Any:
    return build_ranker(config, spec.sizes(ENCODER.width), build_marked_encoder(ENCODER, 40))


def _run(samples: Path, out: Path, name: str) -> dict[str, Any]:
    out.mkdir()
    loop = {
        "config": CONFIG.model_copy(update={"model": ModelConfig(name=name)}).model_dump(mode="json"),
        "samples": str(samples),
        "encoder": "none",
        "out": str(out),
        "build_ranker": _build,
        "finish": lambda ranker, folder: None,
    }
    return Run(loop, Workers()).run()


@pytest.mark.parametrize("name", ["wide-deep", "prectr-v2"])
def test_a_validation_day_without_clicks_keeps_the_best_by_log_loss(
    laboratory: SimpleNamespace, tmp_path: Path, name: str
) -> None:
    samples = _without_clicks(laboratory, tmp_path / "samples", "validation")
    facts = _run(samples, tmp_path / "out", name)
    points = read_curve(tmp_path / "out" / CURVE)
    assert len(points) == CONFIG.epochs and (tmp_path / "out" / STATE).is_file()
    assert all(math.isnan(point[figure]) for point in points for figure in ("auc", "gauc", "auc_position_free"))
    assert facts["best"]["logloss"] == pytest.approx(min(point["logloss"] for point in points), abs=1e-6)


@pytest.mark.parametrize("name", ["wide-deep", "prectr-v2"])
def test_training_days_without_clicks_teach_that_nothing_is_clicked(
    laboratory: SimpleNamespace, tmp_path: Path, name: str
) -> None:
    facts = _run(_without_clicks(laboratory, tmp_path / "samples", "training"), tmp_path / "out", name)
    points = read_curve(tmp_path / "out" / CURVE)
    assert points[-1]["loss"] < points[0]["loss"] and math.isfinite(facts["best"]["gauc"])


def test_a_trial_of_a_sweep_by_an_undefined_figure_is_the_worst_there_is(
    laboratory: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optuna and ASHA take numbers only."""
    reported: list[dict[str, Any]] = []
    monkeypatch.setattr("ray.tune.report", reported.append)
    samples = _without_clicks(laboratory, tmp_path / "samples", "validation")
    config = CONFIG.model_copy(update={"model": ModelConfig(name="wide-deep")})
    given = {"train": config, "samples": samples, "encoder": Path("none"), "build_ranker": _build}
    run_trial({"learning_rate": 0.01}, sweep=SweepConfig(metric="gauc"), **given)  # type: ignore[arg-type]
    assert [result["reached"] for result in reported] == [0.0, 0.0]
    assert all(math.isnan(result["point"]["gauc"]) for result in reported)
    reported.clear()
    run_trial({"learning_rate": 0.01}, sweep=SweepConfig(metric="logloss"), **given)  # type: ignore[arg-type]
    assert reported[-1]["reached"] == min(result["point"]["logloss"] for result in reported)

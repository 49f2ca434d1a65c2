"""Days without clicks: figures that need both classes are undefined and marked so; a sweep by them is refused.

Also inputs that `train` refuses before it starts a worker.
"""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from jobs import sweep, train
from jobs.distill import build_marked_encoder
from models.registry import build_ranker
from prectr.contracts.model_config import EncoderConfig, ModelConfig
from prectr.core.artifacts import run_stage
from prectr.core.config import FrozenConfig
from prectr.core.errors import UsageError
from prectr.core.ray_train import read_curve
from prectr.data.tables import Tables
from prectr.evaluation.config import EvaluateConfig
from prectr.evaluation.day import TestDay
from prectr.evaluation.figures import describe_slices, measure
from prectr.evaluation.scores import position_only
from prectr.features.load import Samples, split_days
from prectr.ranking.bundle import ONLINE_FILE
from prectr.training.config import TrainConfig
from prectr.training.ranker_loop import CURVE, STATE, Run
from prectr.training.start import undefined_figures
from prectr.training.sweep_config import SweepConfig
from prectr.training.sweep_trials import run_trial
from prectr.training.workers import Workers
from tests.manifests import write_manifest
from tests.prectr.training.test_ranker_loop import write_samples

CONFIG = TrainConfig(epochs=2, batch_size=16, text_batch=8, evaluations_per_epoch=1, precision="float32", cpus=1)
ENCODER = EncoderConfig(layers=1, width=8, heads=2, feed_forward=16, dropout=0.0)


def _without_clicks(laboratory: SimpleNamespace, path: Path, chosen: str) -> Path:
    """Samples whose training days, validation day or test day hold no click."""
    write_samples(laboratory, path)
    training, validation, test = split_days(Samples.open(path).days())
    for day in {"training": training, "validation": [validation], "test": [test]}[chosen]:
        for file in (path / "rows" / f"date={day}").glob("*.parquet"):
            pl.read_parquet(file).with_columns(clicked=pl.lit(False)).write_parquet(file)
    return path


@pytest.mark.parametrize("clicked", ["by nobody", "by one user", "as it was"])
def test_what_the_validation_day_cannot_tell_is_known_before_training(
    laboratory: SimpleNamespace, tmp_path: Path, clicked: str
) -> None:
    write_samples(laboratory, tmp_path / "samples")
    day = split_days(Samples.open(tmp_path / "samples").days())[1]
    for file in (tmp_path / "samples" / "rows" / f"date={day}").glob("*.parquet"):
        rows = pl.read_parquet(file)
        users = {"by nobody": [], "by one user": rows["user_id"].unique().sort()[:1].to_list()}
        if clicked in users:
            rows.with_columns(clicked=pl.col("user_id").is_in(users[clicked])).write_parquet(file)
    undefined = undefined_figures(tmp_path / "samples")
    if clicked == "as it was":
        assert undefined is None
    elif clicked == "by nobody":
        assert undefined is not None and undefined.figures == ("auc", "gauc", "auc_position_free")
        assert undefined.why == f"the validation day {day} holds no click, so its AUC and GAUC are undefined"
    else:
        assert undefined is not None and undefined.figures == ("gauc",)
        assert (
            undefined.why == f"no user both clicked and skipped on the validation day {day}, so its GAUC is undefined"
        )


def _build(config: ModelConfig, spec: Any, encoder: Path) -> Any:
    return build_ranker(config, spec.sizes(ENCODER.text_width), build_marked_encoder(ENCODER, 40))


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


def test_a_sweep_by_a_figure_that_nothing_defines_is_refused(laboratory: SimpleNamespace, tmp_path: Path) -> None:
    samples = _without_clicks(laboratory, tmp_path / "samples", "validation")
    run_stage("distill", tmp_path / "encoder", config=FrozenConfig(), inputs={}, build=lambda _: {})
    with pytest.raises(UsageError, match=r"holds no click, so its AUC .* `--set sweep\.metric=logloss`"):
        sweep.run(
            samples=samples,
            encoder=tmp_path / "encoder",
            out=tmp_path / "out",
            config=SweepConfig(),
            train=CONFIG,
        )


def _no_truth(folder: Path) -> Tables:
    """Tables of a log without a known truth, and without rows."""
    folder.mkdir()
    write_manifest(folder, "validate")
    return Tables(folder)


def test_a_test_day_without_clicks_has_a_log_loss_and_no_auc(laboratory: SimpleNamespace, tmp_path: Path) -> None:
    config = EvaluateConfig(resamples=20)
    day = TestDay.of(
        Samples.open(_without_clicks(laboratory, tmp_path / "samples", "test")), _no_truth(tmp_path / "tables"), config
    )
    prior = position_only(day)
    assert prior.probability is not None
    made = measure(day, {"m": [prior]}, config, base="m", improvement_base="m")["all"]
    undefined = ("auc", "gauc", "auc_free", "gauc_free", "predicted_over_actual")
    assert all(math.isnan(made[name]["m"]["value"]) for name in undefined)
    assert made["logloss"]["m"]["value"] == pytest.approx(-np.log(1 - prior.probability).mean(), abs=1e-6)
    assert describe_slices(day, config)["all"]["clicks"] == 0


class _Started(Exception):
    """Stands for the start of the workers."""


@pytest.mark.parametrize("chosen", ["training", "validation"])
def test_train_says_what_is_used_where_gauc_is_undefined(
    laboratory: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    chosen: str,
) -> None:
    samples = _without_clicks(laboratory, tmp_path / "samples", chosen)
    with pytest.raises(_Started):
        _start_training(samples, tmp_path, monkeypatch, online=True)
    said = "holds no click, so its AUC and GAUC are undefined; the state with the smallest log loss is kept\n"
    assert (said in capsys.readouterr().err) == (chosen == "validation")


def test_samples_without_an_online_state_are_refused_before_training(
    laboratory: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_samples(laboratory, tmp_path / "samples")
    with pytest.raises(UsageError, match=r"holds no online state .*`prectr build-samples --set samples\.online=true`"):
        _start_training(tmp_path / "samples", tmp_path, monkeypatch, online=False)


def _start_training(samples: Path, place: Path, monkeypatch: pytest.MonkeyPatch, online: bool) -> None:
    """`train`, as far as the start of its workers."""

    def start(*_: object) -> None:
        raise _Started

    monkeypatch.setattr(train, "ray_session", start)
    for stage in ("distill", "mine-preferences"):
        run_stage(stage, place / stage, config=FrozenConfig(), inputs={}, build=lambda _: {})
    if online:
        (samples / ONLINE_FILE).parent.mkdir()
        (samples / ONLINE_FILE).touch()
    train.run(
        samples=samples,
        encoder=place / "distill",
        preferences=place / "mine-preferences",
        out=place / "bundle",
        config=CONFIG,
    )

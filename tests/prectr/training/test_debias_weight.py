"""The measured weight of exposure debias, on the samples of the training loop's tests and by hand."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from jobs.distill import build_marked_encoder
from models.registry import build_ranker
from prectr.contracts.model_config import EncoderConfig, ExposureConfig, ModelConfig
from prectr.features.load import Samples, split_days
from prectr.training import debias_weight
from prectr.training.config import TrainConfig
from prectr.training.debias_weight import choose, needs_measuring, with_measured_weight
from prectr.training.workers import Workers
from tests.prectr.training.test_ranker_loop import write_samples

ENCODER = EncoderConfig(layers=1, width=8, heads=2, feed_forward=16, dropout=0.0)


def judges(lists: int, clicks: int) -> Any:
    return SimpleNamespace(randomised=True, query_of_list=np.arange(lists) // 2, user_of_click=np.arange(clicks) // 2)


@pytest.mark.parametrize(
    ("candidates", "clicks", "chosen"),
    [
        ({0.03: 0.02, 0.3: 0.05}, {0.03: 0.001, 0.3: 0.002}, 0.3),
        ({0.03: 0.02, 0.3: 0.05}, {0.03: 0.001, 0.3: -0.002}, 0.03),  # clicks say no to the larger one
        ({0.03: 0.02, 0.3: 0.05}, {0.03: -0.001, 0.3: -0.002}, 0.0),
        ({0.03: -0.02, 0.3: 0.0}, {0.03: 0.001, 0.3: 0.002}, 0.0),
    ],
)
def test_a_weight_must_gain_by_levels_and_by_clicks(
    candidates: dict[float, float], clicks: dict[float, float], chosen: float
) -> None:
    rng = np.random.default_rng(3)
    plain = rng.random(400), -rng.random(600)
    answers = {0.0: plain}
    for weight in (0.03, 0.3):
        noise = rng.normal(0, 0.01, 400)
        answers[weight] = plain[0] + candidates[weight] + noise - noise.mean(), plain[1] + clicks[weight]
    facts = choose(judges(400, 600), answers)
    assert facts["weight"] == chosen
    for weight in (0.03, 0.3):
        told = facts["tried"][str(weight)]
        assert told["candidates"]["gain"] == pytest.approx(candidates[weight], abs=1e-6)
        assert told["candidates"]["error"] == pytest.approx(0.01 / 400**0.5, rel=0.2)
        assert told["clicks"] == {"gain": pytest.approx(clicks[weight]), "error": pytest.approx(0.0, abs=1e-9)}


def test_a_gain_within_its_error_is_none() -> None:
    """Four lists of two queries: both lists of a query move together, so there are two independent values, not four."""
    plain = np.full(4, 0.5), np.full(4, -0.5)
    answers = {0.0: plain, 0.3: (plain[0] + [0.03, 0.03, 0.01, 0.01], plain[1] + 0.1)}
    facts = choose(judges(4, 4), answers)
    # mean .02; residuals of the queries +-.02: sqrt(2 x .02^2) / 4 = .00707, so .02 exceeds two errors
    assert facts["tried"]["0.3"]["candidates"] == {"gain": pytest.approx(0.02), "error": pytest.approx(0.007071)}
    assert facts["weight"] == 0.3
    answers[0.3] = plain[0] + [0.05, 0.05, -0.01, -0.01], plain[1] + 0.1  # error sqrt(2 x .06^2) / 4
    assert choose(judges(4, 4), answers)["weight"] == 0.0


def test_only_a_null_weight_of_a_debiased_v2_is_measured() -> None:
    assert needs_measuring(ModelConfig())
    for other in (
        ModelConfig(debias=False),
        ModelConfig(exposure=ExposureConfig(weight=0.0)),
        ModelConfig(exposure=ExposureConfig(weight=0.3)),
        ModelConfig(name="prectr"),
    ):
        assert not needs_measuring(other)


def test_the_weight_is_measured_on_the_candidates_of_the_validation_day(
    laboratory: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = tmp_path / "samples"
    write_samples(laboratory, samples)
    built: list[ModelConfig] = []

    def build(config: ModelConfig, spec: Any, _: Path) -> Any:
        built.append(config)
        return build_ranker(config, spec.sizes(ENCODER.text_width), build_marked_encoder(ENCODER, 40))

    config = TrainConfig(batch_size=16, precision="float32", seed=3)
    loop = {
        "config": config.model_dump(mode="json"),
        "samples": str(samples),
        "encoder": "none",
        "out": str(tmp_path),
        "build_ranker": build,
        "finish": None,
    }
    given = {**loop, "config": TrainConfig(model=ModelConfig(debias=False)).model_dump(mode="json")}
    assert with_measured_weight(given, Workers()) == (given, None)

    _, day, _ = split_days(Samples.open(samples).days())
    resolved, facts = with_measured_weight(loop, Workers())
    assert facts == {"weight": 0.0, "why": f"no unexposed candidates of the validation day {day} are kept"}
    assert resolved["config"]["model"]["exposure"]["weight"] == 0.0

    rows = pl.concat(pl.read_parquet(file) for file in Samples.open(samples).files([day]))
    folder = samples / "candidates" / f"date={day}"
    folder.mkdir(parents=True)
    rows.with_columns(pl.lit(0, pl.Int32).alias("position"), clicked=False).write_parquet(folder / "part-0000.parquet")
    resolved, facts = with_measured_weight(loop, Workers())
    assert facts is not None and set(facts["tried"]) == {"0.03", "0.3"} and facts["clicks"] == "all"
    assert [config.exposure.weight for config in built] == [0.0, 0.03, 0.3]
    assert all(config.fusion.trust == (1.0, 1.0, 1.0) and not config.fusion.text_width for config in built)
    assert TrainConfig.model_validate(resolved["config"]) == debias_weight._with_weight(config, facts["weight"])
    assert with_measured_weight(loop, Workers())[1] == facts

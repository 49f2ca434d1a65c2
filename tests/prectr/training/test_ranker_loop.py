"""The training loop of rankers, on the samples of a tiny random log and without Ray."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from jobs.distill import build_marked_encoder
from models.registry import build_ranker
from prectr.contracts.model_config import EncoderConfig, ExposureConfig, ModelConfig
from prectr.core.artifacts import run_stage
from prectr.core.config import FrozenConfig
from prectr.core.errors import PrectrError
from prectr.core.ray_train import read_curve
from prectr.features.build import FEATURE_GROUPS, sample_rows
from prectr.features.load import Samples, match_columns
from prectr.features.pair_table import pair_table
from prectr.features.spec import FeatureSpec
from prectr.features.texts import split_texts
from prectr.metrics.roc import AucInGroups
from prectr.training.config import TrainConfig
from prectr.training.data import RankerData
from prectr.training.ranker_loop import CURVE, STATE, Run
from prectr.training.step import TrainingStep
from prectr.training.workers import Workers

SMALL = TrainConfig(epochs=2, batch_size=16, text_batch=8, evaluations_per_epoch=1, precision="float32")
ENCODER = EncoderConfig(layers=1, width=8, heads=2, feed_forward=16, dropout=0.0)
LEVEL_WEIGHTS = {"judgment": 1.0, "teacher": 0.4, "encoder": 0.05}
Train = Callable[..., SimpleNamespace]


def write_samples(laboratory: SimpleNamespace, path: Path) -> None:
    """Samples of a random log, as `build-samples` leaves them."""
    shown, items, pairs = laboratory.draw_log(3)
    log = laboratory.mine(shown, items, pairs)
    rows = sample_rows(log.rows, log.context)
    table = pair_table(pairs, items, log.context.spec)
    groups = {
        group: {
            name.removeprefix(f"{group}."): rows[name].to_numpy()
            for name in rows.columns
            if name.startswith(f"{group}.")
        }
        for group in FEATURE_GROUPS
    }

    def build(staging: Path) -> dict[str, Any]:
        for (day,), part in rows.partition_by("date", as_dict=True).items():
            (staging / "rows" / f"date={day}").mkdir(parents=True)
            part.drop("date").write_parquet(staging / "rows" / f"date={day}" / "part-0000.parquet")
        texts, stored = split_texts(table, items.select("item_id", "title"))
        texts.write_parquet(staging / "texts.parquet")
        stored.write_parquet(staging / "pairs.parquet")
        log.context.spec.fit_scalers(groups | {"match": match_columns(table)}).save(staging / "feature_spec.json")
        return {"level_weights": LEVEL_WEIGHTS}

    run_stage("build-samples", path, config=FrozenConfig(), inputs={}, build=build)


@pytest.fixture(scope="session")
def sample_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranker-loop") / "samples"


@pytest.fixture
def samples(sample_store: Path, laboratory: SimpleNamespace) -> Path:
    """Written once a run."""
    if not sample_store.exists():
        write_samples(laboratory, sample_store)
    return sample_store


@pytest.fixture
def train(samples: Path, tmp_path: Path) -> Train:
    """Run the loop as the only worker: its facts, curve, the ranker handed to `finish`, and encoder calls."""
    runs = iter(range(100))

    def run(
        path: Path = samples, workers: Workers | None = None, report: Any = None, **changes: Any
    ) -> SimpleNamespace:
        out = tmp_path / f"run-{next(runs)}"
        out.mkdir()
        result = SimpleNamespace(encoder_calls=[], ranker=None, out=out)

        def build(config: ModelConfig, spec: FeatureSpec, _: Path) -> Any:
            result.ranker = build_ranker(config, spec.sizes(ENCODER.text_width), build_marked_encoder(ENCODER, 40))
            result.ranker.encoder.register_forward_hook(
                lambda *given: result.encoder_calls.append(len(given[2][0])) if torch.is_tensor(given[2][0]) else None
            )
            return result.ranker

        def finish(ranker: Any, folder: Path) -> None:
            assert folder == out
            result.finished = {name: value.clone() for name, value in ranker.state_dict().items()}

        config = SMALL.model_copy(update=changes)
        loop = {
            "config": config.model_dump(mode="json"),
            "samples": str(path),
            "encoder": "none",
            "out": str(out),
            "build_ranker": build,
            "finish": finish,
        }
        result.run = Run(loop | ({} if report is None else {"report": report}), workers or Workers())
        result.facts = result.run.run()
        result.curve = read_curve(out / CURVE)
        return result

    return run


@pytest.mark.parametrize("name", ["wide-deep", "sukd", "daian", "prectr", "prectr-v2"])
def test_loss_falls_and_the_same_seed_gives_the_same_run(train: Train, name: str) -> None:
    changes = {"model": ModelConfig(name=name), "epochs": 12, "learning_rate": 0.02, "encoder_scale": 1.0}
    first, again, other = train(**changes), train(**changes), train(**changes, seed=18)
    losses = [point["loss"] for point in first.curve]
    assert len(losses) == 12 and first.facts["steps"] == 12 * -(-first.facts["rows"] // 16)
    assert losses[-1] < 0.8 * losses[0]
    assert again.curve == first.curve
    assert all(torch.equal(again.finished[name], value) for name, value in first.finished.items())
    assert other.curve != first.curve


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), None])
@pytest.mark.parametrize("group", FEATURE_GROUPS)
def test_broken_features_are_refused(
    train: Train, samples: Path, tmp_path: Path, group: str, value: float | None
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(samples, broken)
    file = sorted(broken.glob("rows/*/*.parquet"))[0]
    rows = pl.read_parquet(file)
    name = next(column for column in rows.columns if column.startswith(f"{group}."))
    spoilt = pl.when(pl.int_range(pl.len()) < 2).then(pl.lit(value)).otherwise(name).alias(name)
    rows.with_columns(spoilt).write_parquet(file)
    with pytest.raises(
        PrectrError, match=rf"2 rows hold NaN or infinite {group} features, the first in {name} of request .*, item "
    ):
        train(broken)


@pytest.mark.parametrize("name", ["match_head", "level_2"])
def test_a_pair_with_broken_features_is_refused_by_its_first_row(
    train: Train, samples: Path, tmp_path: Path, name: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(samples, broken)
    opened = Samples.open(broken)
    row = opened.read(opened.files(opened.days()[:1])).row(2, named=True)
    pairs = pl.read_parquet(broken / "pairs.parquet").with_row_index("row")
    spoilt = pl.when(pl.col("row") == row["pair"]).then(float("nan")).otherwise(name).alias(name)
    pairs.with_columns(spoilt).drop("row").write_parquet(broken / "pairs.parquet")
    with pytest.raises(
        PrectrError, match=rf"rows hold NaN or infinite match features, the first of request .*, item {row['item_id']};"
    ):
        train(broken)


def test_a_batch_of_one_row_is_a_batch(train: Train) -> None:
    """The last one of an epoch may hold as few; its only row may be clicked or not."""
    rows = train(epochs=1).facts["rows"]
    for name in ("wide-deep", "prectr-v2"):
        exposure = ExposureConfig(weight=0.5, minimum_level=1, truncation=False)
        alone = train(model=ModelConfig(name=name, exposure=exposure), epochs=1, batch_size=rows - 1)
        assert alone.facts["steps"] == 2 and alone.facts["step_rows"] == rows
        assert torch.isfinite(torch.tensor(alone.facts["best"]["logloss"]))


def test_level_losses_weigh_rows_by_the_source_of_their_levels(samples: Path) -> None:
    opened = Samples.open(samples)
    data = RankerData(opened, opened.files(opened.days()))
    _, labels, pair = data.batch(np.arange(len(data)))
    source = pl.read_parquet(samples / "pairs.parquet")["source"].to_list()
    assert labels.level_weight is not None
    expected = [LEVEL_WEIGHTS[source[number]] for number in pair.tolist()]
    assert len(set(expected)) == 3 and labels.level_weight.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("gauc", "logloss", "noisy", "best"),
    [
        ([0.5, 0.7, 0.6], [0.1, 0.3, 0.1], False, 1),
        ([0.5, 0.5, 0.4], [0.3, 0.2, 0.1], False, 1),
        ([0.52, 0.5, 0.51], [0.3, 0.2, 0.25], True, 1),  # other users gain in each state: all within the standard error
        ([0.52, 0.5, 0.51], [0.3, 0.2, 0.25], False, 0),  # all users lose alike, whatever the spread between users
        ([float("nan")] * 3, [0.3, 0.2, 0.1], False, 2),
    ],
)
def test_best_validation_point_is_kept(
    train: Train, monkeypatch: pytest.MonkeyPatch, gauc: list[float], logloss: list[float], noisy: bool, best: int
) -> None:
    """The error of a gain is that of the users' gains, not that of one state's GAUC."""
    noise = np.array([[0.1, -0.1, 0.0], [0.0, 0.1, -0.1], [-0.1, 0.0, 0.1]]) * noisy
    states: list[dict[str, torch.Tensor]] = []

    def scripted(step: TrainingStep, _: object) -> tuple[dict[str, float], AucInGroups]:
        states.append({name: value.clone() for name, value in step.ranker.state_dict().items()})
        now = len(states) - 1
        by_user = AucInGroups(gauc[now] + np.array([-0.3, 0.0, 0.3]) + noise[now], np.ones(3))
        return {"gauc": by_user.mean()[0], "logloss": logloss[now]}, by_user

    monkeypatch.setattr("prectr.training.ranker_loop.validate", scripted)
    result = train(epochs=3, learning_rate=0.02)
    assert result.facts["best"]["epoch"] == best + 1
    saved = load_file(result.out / STATE)
    for state in (saved, result.finished):
        assert all(torch.equal(state[name], value) for name, value in states[best].items())
    assert any(not torch.equal(states[0][name], value) for name, value in states[2].items())


def test_frozen_text_is_encoded_once_a_run(train: Train, samples: Path) -> None:
    pairs = len(Samples.open(samples).tokens)
    frozen = train(model=ModelConfig(encoder="frozen"))
    assert sum(frozen.encoder_calls) == pairs
    tuned = train(model=ModelConfig(encoder="tuned"))
    assert sum(tuned.encoder_calls) > pairs
    unread = train(model=ModelConfig(name="wide-deep"))
    assert unread.encoder_calls == []


def test_text_of_rows_is_the_encoders_of_their_pairs(samples: Path) -> None:
    """Sorting by length, batching and the once-a-batch trick change no vector."""
    opened = Samples.open(samples)
    torch.manual_seed(2)
    encoder = build_marked_encoder(ENCODER, 40).eval()
    ranker = build_ranker(ModelConfig(), opened.spec.sizes(ENCODER.text_width), encoder)
    step = TrainingStep(ranker, opened, SMALL).eval()
    pair = torch.tensor([7, 2, 7, 11, 0, 2])
    with torch.no_grad():
        together = step.text(pair)
        alone = torch.cat(
            [
                encoder(**{name: torch.from_numpy(part) for name, part in opened.tokens.padded(row[None]).items()})[0]
                for row in pair.numpy()
            ]
        )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_a_loss_that_explodes_is_an_error(train: Train) -> None:
    with pytest.raises(
        PrectrError, match=r"the loss became (nan|inf) at step \d+ \(.*request .*, item .*; lower train\.learning_rate"
    ):
        train(learning_rate=1e30, warm_up=0.0)


class Killed(Exception):
    """Stands for a kill -9: nothing after it runs."""


class KilledAfter(Workers):
    """Dies at a step, after what was saved before it."""

    def __init__(self, checkpoints: Path, step: int) -> None:
        super().__init__(checkpoints)
        self.step = step

    def save(self, write: Any, step: int) -> None:
        if step > self.step:
            raise Killed
        super().save(write, step)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("name", ["wide-deep", "prectr-v2"])
def test_a_run_that_was_killed_ends_with_the_same_bits(train: Train, tmp_path: Path, name: str, shards: int) -> None:
    """Also with debias noise drawn in every step, and where the log is read in shards."""
    rows = train(epochs=1).facts["rows"]
    model = ModelConfig(name=name, exposure=ExposureConfig(weight=0.5, minimum_level=1, truncation=False))
    changes = {
        "model": model,
        "epochs": 3,
        "batch_size": 8,
        "checkpoint_steps": 1,
        "rows_in_memory": -(-rows // shards),
        "evaluations_per_epoch": 2,
        "pair_rows": 3,
    }
    whole = train(**changes)
    assert whole.facts["steps"] > 6
    for killed_at in (1, 3, whole.facts["steps"] // 2 + 1):
        kept = tmp_path / f"kept-{killed_at}"
        with pytest.raises(Killed):
            train(workers=KilledAfter(kept, killed_at), **changes)
        resumed = train(workers=Workers(kept), **changes)
        assert resumed.run.progress.step == whole.facts["steps"]
        assert resumed.facts["step_rows"] < whole.facts["step_rows"], "the steps before the kill were not done again"
        assert resumed.curve == whole.curve and resumed.facts["best"] == whole.facts["best"]
        assert all(torch.equal(resumed.finished[part], value) for part, value in whole.finished.items())


def test_a_checkpoint_cut_in_half_is_passed_over_for_the_one_before(train: Train, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    whole = train(checkpoint_steps=1)
    with pytest.raises(Killed):
        train(workers=KilledAfter(kept, 3), checkpoint_steps=1)
    newest = max(kept.glob("step-*"))
    model = newest / "model.safetensors"
    model.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    resumed = train(workers=Workers(kept), checkpoint_steps=1)
    assert resumed.facts["passed_over"] == [
        f"{model}: does not match the digest in progress.json (truncated or changed)."
    ]
    assert whole.facts["passed_over"] == []
    assert all(torch.equal(resumed.finished[part], value) for part, value in whole.finished.items())


def test_a_report_that_answers_false_ends_the_run(train: Train) -> None:
    points: list[dict[str, Any]] = []

    def report(point: dict[str, Any]) -> bool:
        points.append(point)
        return len(points) < 2

    result = train(epochs=5, report=report)
    assert len(points) == 2 and [point["step"] for point in result.curve] == [point["step"] for point in points]
    assert result.facts["steps"] == points[-1]["step"]


@pytest.mark.parametrize("model", [ModelConfig(name="lr"), ModelConfig(encoder="frozen")])
def test_rows_are_shuffled_one_by_one_where_no_step_encodes_text(train: Train, model: ModelConfig) -> None:
    pieces, rows = (train(model=model, pair_rows=count, epochs=1) for count in (8, 1))
    assert pieces.curve == rows.curve
    assert all(torch.equal(pieces.finished[name], value) for name, value in rows.finished.items())


def test_rows_of_a_pair_meet_and_their_text_is_encoded_once(train: Train) -> None:
    apart, together = (train(pair_rows=count, epochs=1, evaluations_per_epoch=1) for count in (1, 8))
    assert sum(together.encoder_calls) < sum(apart.encoder_calls)
    assert together.facts["rows"] == apart.facts["rows"]

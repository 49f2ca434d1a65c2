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
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from jobs.distill import build_marked_encoder
from models.registry import build_ranker
from prectr.artifacts import run_stage
from prectr.configuration import FrozenConfig
from prectr.errors import PrectrError
from prectr.features.spec import FeatureSpec
from prectr.model_config import EncoderConfig, ModelConfig
from prectr.samples.build import FEATURE_GROUPS, sample_rows
from prectr.samples.load import Samples, match_columns
from prectr.samples.pair_table import pair_table
from prectr.samples.texts import split_texts
from prectr.training import ranker_loop
from prectr.training.config import TrainConfig
from prectr.training.launch import read_curve

SMALL = TrainConfig(epochs=2, batch_size=16, text_batch=8, evaluations_per_epoch=1, precision="float32")
ENCODER = EncoderConfig(layers=1, width=8, heads=2, feed_forward=16, dropout=0.0)
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
        return {}

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
def train(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Run the loop as the only worker: its facts, curve, the ranker handed to `finish`, and encoder calls."""
    monkeypatch.setattr(ranker_loop, "_rank_and_world", lambda: (0, 1))
    runs = iter(range(100))

    def run(path: Path = samples, **changes: Any) -> SimpleNamespace:
        out = tmp_path / f"run-{next(runs)}"
        out.mkdir()
        result = SimpleNamespace(encoder_calls=[], ranker=None, out=out)

        def build(config: ModelConfig, spec: FeatureSpec, _: Path) -> Any:
            result.ranker = build_ranker(config, spec.sizes(ENCODER.width), build_marked_encoder(ENCODER, 40))
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
        result.facts = ranker_loop.train_ranker(loop)
        result.curve = read_curve(out / ranker_loop.CURVE)
        return result

    return run


@pytest.mark.parametrize("name", ["wide-deep", "prectr", "prectr-v2"])
def test_loss_falls_and_the_same_seed_gives_the_same_run(train: Train, name: str) -> None:
    changes = {"model": ModelConfig(name=name), "epochs": 12, "learning_rate": 0.02, "encoder_scale": 1.0}
    first, again, other = train(**changes), train(**changes), train(**changes, seed=18)
    losses = [point["loss"] for point in first.curve]
    assert len(losses) == 12 and first.facts["steps"] == 12 * -(-first.facts["rows"] // 16)
    assert losses[-1] < 0.8 * losses[0]
    assert again.curve == first.curve
    assert all(torch.equal(again.finished[name], value) for name, value in first.finished.items())
    assert other.curve != first.curve


@given(rows=st.integers(1, 60), batch=st.integers(2, 20), world=st.integers(1, 5), epoch=st.integers(0, 2))
def test_any_number_of_workers_sees_the_same_batches(rows: int, batch: int, world: int, epoch: int) -> None:
    config = TrainConfig(batch_size=batch)
    alone = list(ranker_loop._batches(rows, config, epoch, 0, 1))
    assert sorted(np.concatenate(alone)) == list(range(rows))
    shared = [list(ranker_loop._batches(rows, config, epoch, rank, world)) for rank in range(world)]
    assert {len(parts) for parts in shared} == {len(alone)}, "a worker short of a step would leave the others waiting"
    for whole, *parts in zip(alone, *shared):
        assert set(np.concatenate(parts)) == set(whole)
        assert all(len(part) for part in parts)
        if len(whole) >= world:
            assert sum(map(len, parts)) == len(whole)


def test_epochs_and_seeds_shuffle_differently() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(
            list(ranker_loop._batches(40, TrainConfig(seed=seed, batch_size=7), epoch, 0, 1))
        ).tolist()

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


@pytest.mark.parametrize("group", FEATURE_GROUPS)
def test_nan_features_are_refused(train: Train, samples: Path, tmp_path: Path, group: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(samples, broken)
    file = sorted(broken.glob("rows/*/*.parquet"))[0]
    rows = pl.read_parquet(file)
    name = next(column for column in rows.columns if column.startswith(f"{group}."))
    spoilt = pl.when(pl.int_range(pl.len()) < 2).then(float("nan")).otherwise(name).alias(name)
    rows.with_columns(spoilt).write_parquet(file)
    with pytest.raises(PrectrError, match=rf"broken: 2 rows hold NaN or infinite {group} features; build the samples"):
        train(broken)


@pytest.mark.parametrize(
    ("gauc", "logloss", "best"),
    [
        ([0.5, 0.7, 0.6], [0.1, 0.3, 0.1], 1),
        ([0.5, 0.5, 0.4], [0.3, 0.2, 0.1], 1),
        ([float("nan")] * 3, [0.3, 0.2, 0.1], 2),
    ],
)
def test_best_validation_point_is_kept(
    train: Train, monkeypatch: pytest.MonkeyPatch, gauc: list[float], logloss: list[float], best: int
) -> None:
    states: list[dict[str, torch.Tensor]] = []

    def scripted(step: ranker_loop.TrainingStep, _: object) -> dict[str, float]:
        states.append({name: value.clone() for name, value in step.ranker.state_dict().items()})
        return {"gauc": gauc[len(states) - 1], "logloss": logloss[len(states) - 1]}

    monkeypatch.setattr(ranker_loop, "validate", scripted)
    result = train(epochs=3, learning_rate=0.02)
    assert result.facts["best"]["epoch"] == best + 1
    saved = load_file(result.out / ranker_loop.STATE)
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
    ranker = build_ranker(ModelConfig(), opened.spec.sizes(ENCODER.width), encoder)
    step = ranker_loop.TrainingStep(ranker, opened, SMALL).eval()
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
    with pytest.raises(PrectrError, match=r"the loss became (nan|inf) at step \d+; lower train\.learning_rate"):
        train(learning_rate=1e30, warm_up=0.0)

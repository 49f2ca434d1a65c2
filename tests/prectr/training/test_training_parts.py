"""Dealing, shards, the optimiser and trackers of the training loop, each alone."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prectr.core.dealing import shuffled
from prectr.core.errors import UsageError
from prectr.training.config import TrackingConfig, TrainConfig
from prectr.training.optimiser import TABLES, RankerOptimiser, RowWiseAdam, learning_rate_factor
from prectr.training.ranker_loop import evaluation_steps
from prectr.training.shards import ShardPlan, batches, part_of
from prectr.training.tracking import open_trackers


@given(groups=st.lists(st.integers(0, 6), max_size=80), piece=st.integers(1, 9), seed=st.integers(0, 50))
def test_dealing_keeps_pieces_of_a_group_together(groups: list[int], piece: int, seed: int) -> None:
    group = np.array(groups, dtype=np.int64)
    order = shuffled(group, piece, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(group)))
    dealt = group[order]
    runs = np.diff(np.flatnonzero(np.r_[True, dealt[1:] != dealt[:-1], True])) if len(dealt) else np.array([])
    pieces = sum(-(-int(size) // piece) for size in np.bincount(group) if size) if len(group) else 0
    assert len(runs) <= pieces, "no piece was torn apart"


def test_seeds_deal_differently() -> None:
    group = np.repeat(np.arange(30), 7)
    orders = {tuple(shuffled(group, 3, np.random.default_rng(seed))) for seed in range(4)}
    assert len(orders) == 4


@given(rows=st.integers(1, 60), size=st.integers(2, 20), world=st.integers(1, 5), start=st.integers(0, 3))
def test_any_number_of_workers_sees_the_same_batches(rows: int, size: int, world: int, start: int) -> None:
    order = np.random.default_rng(0).permutation(rows)
    actual = list(batches(order, size, start * size))
    assert np.concatenate([*actual, np.array([], np.int64)]).tolist() == order[start * size :].tolist()
    for batch in actual:
        parts = [part_of(batch, rank, world) for rank in range(world)]
        assert all(len(part) for part in parts), "a worker short of a step would leave the others waiting"
        assert set(np.concatenate(parts)) == set(batch)
        if len(batch) >= world:
            assert np.concatenate(parts).tolist() == batch.tolist()


def test_shards_hold_every_file_once_an_epoch_in_another_order(tmp_path: Path) -> None:
    files = []
    for number, rows in enumerate([5, 9, 2, 7, 30, 4, 6]):
        files.append(tmp_path / f"{number}.parquet")
        pl.DataFrame({"x": range(rows)}).write_parquet(files[-1])
    plan = ShardPlan.of(files, most_rows=15)
    epochs = [plan.epoch(3, epoch) for epoch in range(4)]
    for shards in epochs:
        assert sorted(file for shard in shards for file in shard.files) == files
        assert [shard.number for shard in shards] == list(range(len(shards)))
        assert all(shard.rows <= 15 or len(shard.files) == 1 for shard in shards)
    assert len({tuple(shards) for shards in epochs}) > 1
    assert plan.steps(3, 4, 4) == [sum(-(-shard.rows // 4) for shard in shards) for shards in epochs]
    whole = ShardPlan.of(files, most_rows=63)
    assert whole.total == 63 and len(whole.epoch(3, 0)) == 1


def test_row_wise_adam_by_hand() -> None:
    table = torch.nn.Parameter(torch.zeros(4, 2))
    optimiser = RowWiseAdam([table], lr=0.5, betas=(0.5, 0.75), eps=0.0)
    table.grad = torch.sparse_coo_tensor([[1, 3, 1]], [[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]], (4, 2))
    optimiser.step()
    # Row 1: gradient (1, 1), m = (.5, .5) / .5, s = .25 / .25: a step of .5. Row 3: (2, 0), m = (2, 0), s = 2.
    torch.testing.assert_close(table.detach(), torch.tensor([[0, 0], [-0.5, -0.5], [0, 0], [-(0.5**0.5), 0]]))
    table.grad = torch.sparse_coo_tensor([[3]], [[0.0, 4.0]], (4, 2))
    optimiser.step()
    # Row 3: m = (1, 0) / 2 + (0, 4) / 2 = (.5, 2), over 1 - .25; s = .75 x .5 + .25 x 8 = 2.375, over 1 - .5625
    moved = 0.5 / 0.75 / (2.375 / 0.4375) ** 0.5
    expected = torch.tensor([[0, 0], [-0.5, -0.5], [0, 0], [-(0.5**0.5) - 0.5 * moved, -2 * moved]])
    torch.testing.assert_close(table.detach(), expected)
    assert optimiser.state[table]["square"].tolist() == pytest.approx([0, 0.25, 0, 2.375])


def test_dense_gradients_are_refused() -> None:
    table = torch.nn.Parameter(torch.zeros(4, 2))
    table.grad = torch.ones(4, 2)
    with pytest.raises(ValueError, match="give dense parameters to AdamW"):
        RowWiseAdam([table], lr=0.5).step()


def _model(seed: int) -> tuple[torch.nn.Parameter, torch.nn.Linear, RankerOptimiser]:
    torch.manual_seed(seed)
    table, layer = torch.nn.Parameter(torch.randn(6, 3)), torch.nn.Linear(3, 1)
    groups = [
        {"params": list(layer.parameters()), "lr": 0.1, "name": "ranker"},
        {"params": [table], "lr": 0.2, "name": TABLES},
    ]
    return table, layer, RankerOptimiser(groups, TrainConfig(), steps=10)


def test_the_optimiser_goes_on_from_its_tensors() -> None:
    def step(model: tuple[torch.nn.Parameter, torch.nn.Linear, RankerOptimiser], done: int) -> None:
        table, layer, optimiser = model
        rows = torch.nn.functional.embedding(torch.tensor([done % 6, 2]), table, sparse=True)
        optimiser.step(layer(rows).square().sum(), done)

    whole = _model(1)
    for done in range(6):
        step(whole, done)
    first = _model(1)
    for done in range(3):
        step(first, done)
    second = _model(2)
    with torch.no_grad():
        second[0].copy_(first[0])
        second[1].load_state_dict(first[1].state_dict())
    second[2].load_tensors({name: value.clone() for name, value in first[2].tensors().items()})
    for done in range(3, 6):
        step(second, done)
    assert torch.equal(whole[0], second[0]) and torch.equal(whole[1].weight, second[1].weight)


def test_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate_factor(done, 100, 0.1) for done in range(101)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1.0, abs=1e-3)
    assert rates.index(max(rates)) in (9, 10) and rates[100] == pytest.approx(0)
    assert all(later <= earlier for earlier, later in zip(rates[10:], rates[11:]))


@pytest.mark.parametrize("steps", [[7], [5, 6], [1, 1], [40, 40]])
def test_every_epoch_ends_with_a_validation(steps: list[int]) -> None:
    at = evaluation_steps(steps, 3)
    assert set(np.cumsum(steps)) <= at and min(at) >= 1 and max(at) == sum(steps)
    assert len(at) == sum(min(3, count) for count in steps)


def test_figures_go_to_jsonl_and_tensorboard(tmp_path: Path) -> None:
    from tensorboardX.proto import event_pb2

    settings = TrackingConfig(tensorboard=tmp_path / "events")
    trackers = open_trackers(settings, tmp_path / "curve.jsonl", "prectr-v2", {})
    trackers.point(3, {"gauc": 0.61, "epoch": 1, "note": "not a number"})
    trackers.close()
    line = json.loads((tmp_path / "curve.jsonl").read_text())
    assert line == {"step": 3, "gauc": 0.61, "epoch": 1, "note": "not a number"}
    (file,) = (tmp_path / "events").rglob("events.out.tfevents.*")
    actual = {
        value.tag: (event.step, value.simple_value)
        for event in _events(file, event_pb2)
        for value in event.summary.value
    }
    assert actual == {"gauc": (3, pytest.approx(0.61)), "epoch": (3, 1.0)}


def _events(file: Path, event_pb2: object) -> list:
    """Records of an event file: length, its checksum, the event, its checksum."""
    content, place, events = file.read_bytes(), 0, []
    while place < len(content):
        size = int.from_bytes(content[place : place + 8], "little")
        event = event_pb2.Event()
        event.ParseFromString(content[place + 12 : place + 12 + size])
        events.append(event)
        place += 12 + size + 4
    return events


def test_mlflow_that_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow.tracking", None)
    with pytest.raises(UsageError, match=r"pip install prectr\[mlflow\]"):
        open_trackers(TrackingConfig(mlflow=f"file:{tmp_path}"), tmp_path / "curve.jsonl", "x", {})


@pytest.mark.parametrize("workers", [0, (0, 2), (3, 2)])
def test_impossible_numbers_of_workers_are_refused(workers: object) -> None:
    with pytest.raises(ValueError, match="workers must be at least 1"):
        TrainConfig(workers=workers)

"""What stages ask of Ray: as their configuration says, and refused at once where an embedded Ray can never give it."""

import signal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.errors import UsageError
from prectr.core.ray_session import RayConfig, require_resources, resources, task_budget
from prectr.core.ray_train import fit_on_ray
from prectr.labelling.config import LabelConfig, ReplicaConfig
from prectr.relevance.batch_scoring import score_pairs
from prectr.relevance.config import DistillConfig, ScoreConfig
from tests.prectr.bundle_world import ENCODER, publish_encoder

pytestmark = pytest.mark.usefixtures("ray_local")
QUERIES = [f"phone {number}" for number in range(12)]
TITLES = [f"blue phone {number}" for number in range(12)]


def assigned(config: dict[str, Any]) -> dict[str, float]:
    """What the worker that runs this was given."""
    import ray

    return {name: float(amount) for name, amount in ray.get_runtime_context().get_assigned_resources().items()}


def test_a_training_worker_gets_its_cpus_and_memory(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    given = fit_on_ray(assigned, {}, name="x", storage=tmp_path, of_worker=resources(3, memory_gib=0.25))
    assert (given["CPU"], given["memory"]) == (3, 2**28)
    # Ray Train sets a handler of its own, which would keep an interrupt from the later stages of a pipeline.
    assert signal.getsignal(signal.SIGINT) is before


def test_a_pool_of_actors_may_grow_and_scores_alike(tmp_path: Path) -> None:
    publish_encoder(tmp_path / "encoder", QUERIES, TITLES, DistillConfig(encoder=ENCODER))
    pairs = pl.DataFrame({"query": QUERIES, "item_id": QUERIES, "title": TITLES}).with_row_index("pair")
    pairs = pairs.with_columns(
        pl.col("pair").cast(pl.Int32),
        *(pl.lit(None, pl.Float32).alias(name) for name in LEVEL_COLUMNS),
        source=pl.lit(None, pl.String),
    )
    one, many = (
        pl.concat([pl.DataFrame(batch) for batch in score_pairs(pairs, tmp_path / "encoder", config)]).sort("pair")
        for config in (
            ScoreConfig(actors=1),
            ScoreConfig(actors=(1, 2), cpus=2, threads=2, memory_gib=0.25, block_pairs=4),
        )
    )
    assert one["pair"].to_list() == list(range(12)) and one.select(LEVEL_COLUMNS).to_numpy().std() > 1e-3
    assert many.select(LEVEL_COLUMNS).to_numpy() == pytest.approx(one.select(LEVEL_COLUMNS).to_numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"cpus": 2, "gpus": 99}, r"^train\.gpus 99: Ray has [\d.]+ GPUs here; lower it\.$"),
        ({"cpus": 99}, r"^train\.cpus 99: Ray has 8 CPUs here; lower it, or raise ray\.num_cpus\.$"),
        (
            {"cpus": 2, "workers": 5},
            r"^train\.workers 5 with train\.cpus 2 each: Ray has 8 CPUs here; lower one of the",
        ),
        ({"cpus": 1, "memory_gib": 1e6}, r"^train\.memory_gib 1e\+06: Ray has [\d.]+ GiB here; lower it\.$"),
    ],
)
def test_what_can_never_be_given_is_refused(asked: dict[str, Any], message: str) -> None:
    workers = asked.pop("workers", None)
    with pytest.raises(UsageError, match=message):
        require_resources("train", resources(**asked), workers=workers)


def test_a_cluster_may_yet_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    require_resources("train", resources(cpus=99, gpus=99))


def test_tasks_at_once_have_a_limit() -> None:
    assert task_budget(RayConfig(tasks=1)).at_once == 1 <= task_budget().at_once
    assert task_budget(RayConfig(tasks=1)).of_task == task_budget().of_task


def test_a_replica_of_the_teacher_sets_its_memory_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from prectr.labelling.engines.contract import map_replicas

    told: dict[str, Any] = {}
    questions: Any = SimpleNamespace(map_batches=lambda replica, **options: told.update(options))
    question: Any = SimpleNamespace(config=LabelConfig(replicas=ReplicaConfig(cpus=4, memory_gib=2, at_most=3)))
    map_replicas(questions, object, question)
    assert (told["num_cpus"], told["memory"], told["compute"].max_size) == (4, 2**31, 3)

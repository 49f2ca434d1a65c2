"""The whole chain as one submitted job of a cluster that loses its worker node in every stage, or the driver.

The driver runs on the head, which has no CPU for tasks: all work is on one worker node, and goes with it. What is left
must be what an undisturbed run leaves, to the last bit: both runs are on this machine, with the same thread counts.
"""

import hashlib
import json
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest

from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.artifacts import read_manifest
from prectr.labelling.engines.choose import choose_engine
from tests.ray_cluster import RayCluster, ray_cluster

pytestmark = pytest.mark.faults
NODE_CPUS = 4
SECONDS = 1800
"""Of a pipeline at most; a quiet machine takes about one minute, two with eight lost nodes."""
SETTINGS = """
pipeline: {workspace: workspace, rankers: [prectr-v2]}
simulate: {users: 40, items: 400, queries: 40, requests: 400, days: 4}
teacher: {width: 32, heads: 1, layers: 1, feed_forward: 32, vocabulary: 400, warm_start_pairs: 200, epochs: 1, cpus: 1}
selection: {budget: 2000}
label: {engine: transformers, repeat_sample: 20, batch_size: 16, shard_rows: 16}
distill:
  encoder: {layers: 1, width: 32, heads: 2, feed_forward: 32, vocabulary: 500, max_length: 24}
  epochs: 1
  cpus: 1
relevance: {actors: 1}
sweep: {trials: 2, search: {learning_rate: {low: 0.001, high: 0.03, log: true}}}
train: {epochs: 1, batch_size: 64, evaluations_per_epoch: 2, checkpoint_steps: 4, cpus: 1}
"""
LABELS, RANKER = "labels", "rankers/prectr-v2"
STAGES = ("teacher", LABELS, "encoder", "relevance", "preferences", "samples", RANKER, "reports/evaluation")
"""Those that may work on the cluster."""
COMPARED = (".parquet", ".safetensors", ".onnx", ".mdb", "tokenizer.json")


@dataclass
class Job:
    """A submitted command, whose artifacts go to `workspace` in its directory."""

    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    def said(self) -> str:
        return (self.folder / "said").read_text()

    def building(self, stage: str) -> bool:
        """Whether a stage is at work."""
        place = self.workspace / stage
        return any(place.parent.glob(f".{place.name}.building-*"))

    def published(self, stage: str) -> bool:
        """Whether a stage has ended."""
        return (self.workspace / stage / "manifest.json").exists()

    def succeeds(self) -> None:
        """It ends with exit code 0."""
        assert self.process.wait(timeout=SECONDS) == 0, self.said()


def submit(cluster: RayCluster, folder: Path, *command: str) -> Job:
    """Submit a command from a directory, the pipeline unless told otherwise."""
    (folder / "settings.yaml").write_text(SETTINGS)
    command = ("submit", "--address", cluster.address, "--follow", *(command or ("pipeline",)))
    return Job(folder, cluster.start_prectr(*command, "--config", "settings.yaml", cwd=folder, said=folder / "said"))


def wait_for(condition: Callable[[], Any], job: Job) -> bool:
    """Until a condition holds; False where the job ended first."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if job.process.poll() is not None:
            return False
        assert time.monotonic() < deadline, job.said()
        time.sleep(0.02)
    return True


def evaluation(workspace: Path) -> dict[str, Any]:
    """The tables that the pipeline ends with."""
    found: dict[str, Any] = json.loads((workspace / "reports" / "evaluation" / "evaluation.json").read_text())
    return found


def digests(workspace: Path) -> dict[str, str]:
    """Hashes of the files that hold data or weights."""
    files = [
        file for stage in STAGES for file in sorted((workspace / stage).rglob("*")) if file.name.endswith(COMPARED)
    ]
    return {str(file.relative_to(workspace)): hashlib.blake2b(file.read_bytes()).hexdigest() for file in files}


class NodeKiller(threading.Thread):
    """Kills the worker node once in every stage, and starts another.

    Attributes:
        killed: stage -> whether it was still at work then.
        told: when that was.
    """

    def __init__(self, cluster: RayCluster, job: Job, seconds: dict[str, float], moments: random.Random) -> None:
        super().__init__(daemon=True)
        self.cluster, self.job, self.seconds, self.moments = cluster, job, seconds, moments
        self.killed: dict[str, bool] = {}
        self.told: list[str] = []

    def run(self) -> None:
        for stage in STAGES:
            if not wait_for(lambda stage=stage: self.job.building(stage) or self.job.published(stage), self.job):
                return
            began = time.monotonic()
            self._wait_for_the_moment(stage)
            self.cluster.nodes[-1].kill()
            self.killed[stage] = self.job.building(stage)
            self.told.append(f"{stage}: after {time.monotonic() - began:.1f} of {self.seconds[stage]:.1f} s")
            self.cluster.add_node(NODE_CPUS)

    def _wait_for_the_moment(self, stage: str) -> None:
        """In the middle of labels and of training, when something is done and something left; else at any moment."""
        workspace = self.job.workspace
        moment = time.monotonic() + self.moments.random() * 0.7 * self.seconds[stage]

        def has_come() -> bool:
            if stage == LABELS:
                come = any((workspace / "label-ledger").rglob("labels-*.parquet"))
            elif stage == RANKER:
                come = any((workspace / "rankers").glob(".prectr-v2.training-*/run/checkpoint*"))
            else:
                come = time.monotonic() > moment
            return come or self.job.published(stage)

        wait_for(has_come, self.job)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    with ray_cluster(tmp_path_factory.mktemp("cluster")) as started:
        started.add_node(NODE_CPUS)
        yield started


@pytest.fixture(scope="module")
def undisturbed(cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of a run that nothing happened to."""
    job = submit(cluster, tmp_path_factory.mktemp("undisturbed"))
    job.succeeds()
    return job.workspace


@pytest.mark.timeout(2 * SECONDS)
def test_a_worker_node_lost_in_every_stage_changes_nothing(
    cluster: RayCluster, undisturbed: Path, tmp_path: Path
) -> None:
    seconds = {stage: read_manifest(undisturbed / stage)["wall_seconds"] for stage in STAGES}  # type: ignore[index]
    killer = NodeKiller(cluster, job := submit(cluster, tmp_path), seconds, random.Random(5))
    killer.start()
    job.succeeds()
    killer.join(timeout=120)
    print("\n".join(killer.told))
    assert killer.killed.keys() == set(STAGES), killer.told
    assert killer.killed[LABELS] and killer.killed[RANKER], f"lost in the middle of the work: {killer.told}"
    assert evaluation(job.workspace) == evaluation(undisturbed)
    assert digests(job.workspace) == digests(undisturbed)


@pytest.mark.timeout(SECONDS)
def test_a_killed_driver_leaves_what_the_next_goes_on_from(
    cluster: RayCluster, undisturbed: Path, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    shutil.copytree(undisturbed, workspace)
    for made in (workspace / RANKER, workspace / "reports"):
        shutil.rmtree(made)
    first = submit(cluster, tmp_path)
    wait_for(lambda: any((workspace / "rankers").glob(".prectr-v2.training-*/run/checkpoint*")), first)
    state = json.loads((workspace / "pipeline.json").read_text())
    psutil.Process(state["process"]).kill()
    assert first.process.wait(timeout=120) != 0, first.said()
    assert not (workspace / RANKER).exists()
    second = submit(cluster, tmp_path)
    second.succeeds()
    assert second.said().count("up to date, skipped") == 8 and "continues from the last checkpoint" in second.said()
    assert evaluation(workspace) == evaluation(undisturbed)
    assert digests(workspace) == digests(undisturbed)


@pytest.mark.timeout(2 * SECONDS)
def test_a_sweep_that_loses_its_node_in_a_trial_finds_the_same(
    cluster: RayCluster, undisturbed: Path, tmp_path: Path
) -> None:
    found = []
    for name, disturbed in (("left alone", False), ("disturbed", True)):
        (folder := tmp_path / name).mkdir()
        inputs = ("--samples", str(undisturbed / "samples"), "--encoder", str(undisturbed / "encoder"))
        job = submit(cluster, folder, "sweep", *inputs, "--model", "wide-deep", "--out", "workspace/sweep")
        if disturbed:
            assert wait_for(lambda job=job: any(job.workspace.glob(".sweep.sweep-*/trial-*.json")), job), job.said()
            cluster.nodes[-1].kill()
            assert not (job.workspace / "sweep").exists(), "the second trial was at work"
            cluster.add_node(NODE_CPUS)
        job.succeeds()
        trials = json.loads((job.workspace / "sweep" / "trials.json").read_text())["trials"]
        found.append([(trial["settings"], trial["points"], trial["error"]) for trial in trials])
    assert found[0] == found[1] and len(found[0]) == 2 and all(error is None for *_, error in found[0])


@pytest.mark.skipif(choose_engine("auto", "directory") != "vllm", reason="vLLM is not installed here")
@pytest.mark.timeout(SECONDS)
def test_vllm_that_goes_with_its_node_has_labelled_every_pair_once(
    cluster: RayCluster, undisturbed: Path, tmp_path: Path
) -> None:
    """Its answers are compared with transformers' up to bfloat16: they depend on who was asked beside whom."""
    inputs = ("--tables", str(undisturbed / "tables"), "--teacher", str(undisturbed / "teacher"))
    options = ("--set", "label.engine=vllm", "--out", "workspace/labels")
    job = submit(cluster, tmp_path, "label", *inputs, *options)
    assert wait_for(lambda: any((job.workspace / "label-ledger").rglob("labels-*.parquet")), job), job.said()
    cluster.nodes[-1].kill()
    assert not job.published(LABELS), "questions were left"
    cluster.add_node(NODE_CPUS)
    job.succeeds()
    manifest = read_manifest(job.workspace / LABELS)
    labels = pl.read_parquet(job.workspace / LABELS / "labels.parquet")
    assert manifest is not None and manifest["engines"] == {"vllm": len(labels)}
    assert len(labels) == labels.select("query", "item_id").n_unique() == manifest["rows"]["questions"] > 1000
    both = labels.join(pl.read_parquet(undisturbed / LABELS / "labels.parquet"), on=["query", "item_id"])
    assert len(both) > 100
    by_vllm, by_transformers = (both.select(f"{name}{suffix}" for name in LEVEL_COLUMNS) for suffix in ("", "_right"))
    assert abs(by_vllm.to_numpy() - by_transformers.to_numpy()).max() < 0.02

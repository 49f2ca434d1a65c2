"""The training loop under real Ray Train: a killed driver, a killed worker, several workers."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import ray
import torch
from safetensors.torch import load_file

from prectr.core.errors import PrectrError
from prectr.core.ray_train import read_curve
from prectr.features.load import Samples
from prectr.training.ranker_loop import CURVE, STATE
from tests.prectr import training_run
from tests.prectr.training.test_ranker_loop import write_samples
from tests.processes import end_agents, with_code

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("on-ray")


@pytest.fixture
def samples(place: Path, laboratory: SimpleNamespace) -> Path:
    if not (place / "samples").exists():
        write_samples(laboratory, place / "samples")
    return place / "samples"


@pytest.fixture
def whole(place: Path, samples: Path, ray_local: None) -> SimpleNamespace:
    """A run that nothing disturbed; made once."""
    work = place / "whole"
    if not work.exists():
        training_run.train(samples, work)
    return SimpleNamespace(state=load_file(work / "out" / STATE), curve=read_curve(work / "out" / CURVE), work=work)


def _checkpoints(work: Path) -> int:
    return len(list((work / "kept").rglob("progress.json")))


def _wait_for(condition: object, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.faults
def test_a_killed_driver_goes_on_bit_for_bit(whole: SimpleNamespace, samples: Path, tmp_path: Path) -> None:
    work = tmp_path / "killed"
    command = [
        sys.executable,
        "-m",
        "tests.prectr.training_run",
        str(samples),
        str(work),
        str(tmp_path / "result.json"),
    ]
    environment = with_code()
    driver = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        _wait_for(lambda: _checkpoints(work) >= 2)
    finally:
        children = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    end_agents(children)
    done = len(read_curve(work / "out" / CURVE))
    assert done < len(whole.curve), "it was killed in the middle"
    facts = training_run.train(samples, work)
    assert facts["step_rows"] < facts["rows"] * training_run.CHANGES["epochs"]
    state = load_file(work / "out" / STATE)
    assert all(torch.equal(state[name], value) for name, value in whole.state.items())
    assert read_curve(work / "out" / CURVE) == whole.curve
    assert not (work / "kept").exists(), "what a finished run kept is gone"


@pytest.mark.faults
def test_a_killed_worker_is_replaced_and_the_run_ends_the_same(
    whole: SimpleNamespace, samples: Path, tmp_path: Path
) -> None:
    work = tmp_path / "worker"
    killed: list[int] = []

    def kill() -> None:
        _wait_for(lambda: _checkpoints(work) >= 1)
        killed.append(int((work / "workers.txt").read_text().split()[-1]))
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    training_run.train(samples, work, restarts=1)
    thread.join(5)
    assert killed and len((work / "workers.txt").read_text().split()) == 2
    state = load_file(work / "out" / STATE)
    assert all(torch.equal(state[name], value) for name, value in whole.state.items())


def test_two_workers_do_what_one_does(samples: Path, tmp_path: Path, ray_local: None) -> None:
    """As many as there is room for, between one and fifty: the same batches, gradients averaged."""
    changes = {
        "model": {"name": "prectr", "consistency": {"level_weight": 0.0}},
        "batch_size": 16,
        "epochs": 4,
        "checkpoint_steps": 1000,
    }
    curves = []
    for workers, started in ((1, 1), ((1, 50), 2)):
        work = tmp_path / f"{started}"
        _wait_for(lambda: ray.available_resources().get("CPU", 0) >= 8)
        training_run.train(samples, work, workers=workers, cpus=3, changes=changes)
        curves.append(read_curve(work / "out" / CURVE))
        assert len((work / "workers.txt").read_text().split()) == started
    for one, two in zip(*curves, strict=True):
        assert two["step"] == one["step"]
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
        assert two["logloss"] == pytest.approx(one["logloss"], rel=2e-3)


def test_a_refusal_is_said_at_once_and_not_tried_again(samples: Path, tmp_path: Path, ray_local: None) -> None:
    with pytest.raises(PrectrError, match=r"the loss became .*lower train\.learning_rate"):
        training_run.train(
            samples, tmp_path / "refused", restarts=3, changes={"learning_rate": 1e30, "warm_up": 0.0, "epochs": 2}
        )
    assert len((tmp_path / "refused" / "workers.txt").read_text().split()) == 1
    assert Samples.open(samples)

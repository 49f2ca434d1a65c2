"""Fixtures of all tests of jobs."""

from functools import partial

import pytest

from jobs.settings import Settings
from prectr.core.config import load_config
from tests.jobs.demo_run import TINY, Ran, run_demo
from tests.jobs.run_command import Prectr, run_command


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Ran:
    root = tmp_path_factory.mktemp("demo")
    (root / "settings.yaml").write_text(TINY, encoding="utf-8")
    return run_demo(root / "workspace", load_config(Settings, root / "settings.yaml"))


@pytest.fixture
def prectr(capsys: pytest.CaptureFixture[str]) -> Prectr:
    """Run a command in this process: (exit code, standard output, standard error)."""
    return partial(run_command, capsys)


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting Ray fails the test."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("ray.init", refuse)

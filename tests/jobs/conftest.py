"""Fixtures of all tests of jobs."""

import pytest

from prectr.configuration import load_config
from prectr.settings import Settings
from tests.jobs.demo_run import TINY, Ran, run_demo


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Ran:
    root = tmp_path_factory.mktemp("demo")
    (root / "settings.yaml").write_text(TINY, encoding="utf-8")
    return run_demo(root / "workspace", load_config(Settings, root / "settings.yaml"))

"""The tiny log's bundle, as the library's tests have it, and a plain server of it."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from prectr.serving.config import ServeConfig
from tests import processes
from tests.prectr.conftest import bundle_place, laboratory, world

__all__ = ["bundle_place", "laboratory", "world"]


@contextmanager
def plain_server(config: ServeConfig, watch: Path | None = None) -> Iterator[str]:
    """`prectr serve --plain` in a thread; gives its URL."""
    from serve_apps.plain import make_server

    with running(make_server(config, watch)) as url:
        yield url


@contextmanager
def running(server: uvicorn.Server) -> Iterator[str]:
    """A server of uvicorn in a thread; gives its URL."""
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    try:
        yield f"http://{server.config.host}:{server.config.port}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)


@pytest.fixture
def free_port() -> int:
    """A port that nothing listens on."""
    return processes.free_port()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium; without one the tests are left out, but not where everything has to be tested."""

    def lacking(what: str) -> None:
        if os.environ.get("CI"):
            pytest.fail(f"{what}; pages cannot be tested")
        pytest.skip(f"{what}; install it to test pages")

    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        lacking("playwright is not installed")
    with sync_playwright() as playwright:
        names = ("chromium", "chromium-browser", "google-chrome")
        executable = next(filter(None, map(shutil.which, names)), None) or playwright.chromium.executable_path
        if not Path(executable).exists():
            lacking("no Chromium is installed")
        opened = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield opened
        opened.close()

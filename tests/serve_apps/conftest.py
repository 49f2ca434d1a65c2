"""The tiny log's bundle, as the library's tests have it, and a plain server of it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prectr.serving.config import ServeConfig
from tests import processes
from tests.prectr.conftest import bundle_place, laboratory, world

__all__ = ["bundle_place", "laboratory", "world"]


@contextmanager
def plain_server(config: ServeConfig, watch: Path | None = None) -> Iterator[str]:
    """`prectr serve --plain` in a thread; gives its URL."""
    from serve_apps.plain import make_server

    server = make_server(config, watch)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    try:
        yield f"http://{config.host}:{config.port}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)


@pytest.fixture
def free_port() -> int:
    """A port that nothing listens on."""
    return processes.free_port()

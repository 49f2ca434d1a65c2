"""Serve an application on the running Ray for the length of a block; shared by `serve` and `teacher serve`."""

import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from prectr.core import progress
from prectr.core.errors import PrectrError, shorten
from prectr.core.ray_errors import find_user_error
from prectr.serving.config import ServeConfig

HEALTH_TIMEOUT_SECONDS = 120


@contextmanager
def serving_application(name: str, build: Callable[[], Any], config: ServeConfig, *, health: str) -> Iterator[str]:
    """Serve an application for the block; gives the base URL once requests are answered.

    Args:
        name: of the application, also for messages.
        build: makes the Serve application.
        config: host and port.
        health: path that answers 200 once the application is up.

    Raises:
        PrectrError: the port is taken, or the application did not come up.
    """
    require_free_port(config)
    from ray import serve

    if progress.verbosity() < 1:
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
    url = f"http://{config.host}:{config.port}"
    serve.start(http_options={"host": config.host, "port": config.port}, logging_config=_quiet_logging())
    try:
        application = build()
        try:
            serve.run(application, name=name, route_prefix="/", logging_config=_quiet_logging())
        except RuntimeError as error:  # Serve tells in words only what the replica raised
            raise find_user_error(error) or PrectrError(f"the {name} cannot be served: {shorten(error)}") from error
        _wait_until_healthy(url + health, name)
        yield url
    finally:
        serve.shutdown()


def wait_for_interrupt() -> None:
    """Return when the user, or a supervisor with SIGTERM, stops the server, which is how one ends and no failure."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            while True:  # a wait without end is not woken when one of Ray's threads receives the signal
                time.sleep(0.5)
    finally:
        signal.signal(signal.SIGTERM, before)
    progress.say("serving: stopped")


def require_free_port(config: ServeConfig) -> None:
    """Refuse a port that something else listens on.

    Raises:
        PrectrError: it is taken, or may not be opened.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            raise PrectrError(
                f"{config.host}:{config.port}: cannot listen there ({error.strerror}); give another serve.port."
            ) from None


def free_port(host: str = "127.0.0.1") -> int:
    """A port of the host that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _quiet_logging() -> dict[str, Any]:
    return {"log_level": "ERROR" if progress.verbosity() < 1 else "INFO", "enable_access_log": progress.verbosity() > 0}


def _wait_until_healthy(url: str, name: str) -> None:
    """Poll: the proxy may answer 404 for a moment after an application was deployed."""
    import httpx

    deadline = time.monotonic() + HEALTH_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            if httpx.get(url, timeout=5).status_code == 200:
                return
        time.sleep(0.2)
    raise PrectrError(f"{url}: the {name} did not answer within {HEALTH_TIMEOUT_SECONDS} s; run again with -v.")

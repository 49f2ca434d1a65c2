"""serve: a bundle over HTTP with Ray Serve.

The application is named by its import path, as in a Serve configuration file: jobs do not import `serve_apps`.
"""

import importlib
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prectr import progress
from prectr.artifacts import require_artifact
from prectr.errors import PrectrError
from prectr.ray_session import RayConfig, ray_session
from prectr.settings import ServeConfig

APPLICATION = ("serve_apps.ranker", "build_app", "AppArguments")
START_TIMEOUT_SECONDS = 120


@contextmanager
def serving(ranker: Path, config: ServeConfig) -> Iterator[str]:
    """Serve a bundle on the running Ray for the block; gives the base URL once requests are answered.

    Raises:
        UsageError: no bundle there.
        PrectrError: the port is taken, or the application did not come up.
    """
    _check(ranker, config)
    from ray import serve

    if progress.verbosity() < 1:
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
    module = importlib.import_module(APPLICATION[0])
    build, arguments = (getattr(module, name) for name in APPLICATION[1:])
    url = f"http://{config.host}:{config.port}"
    serve.start(http_options={"host": config.host, "port": config.port}, logging_config=_quiet_logging())
    try:
        application = build(
            arguments(
                bundle=str(ranker.resolve()),
                replicas=config.replicas,
                threads=config.threads,
                max_ongoing_requests=config.max_ongoing_requests,
            )
        )
        serve.run(application, name="ranker", route_prefix="/", logging_config=_quiet_logging())
        _wait_until_healthy(url)
        yield url
    finally:
        serve.shutdown()


def run(*, ranker: Path, config: ServeConfig, ray_config: RayConfig | None = None) -> None:
    """Serve until interrupted, which is how a server ends and no failure."""
    _check(ranker, config)  # before Ray starts
    with ray_session(ray_config), serving(ranker, config) as url:
        progress.say(f"serving {ranker} at {url}  (POST {url}/score, docs at {url}/docs; stop with Ctrl-C)")
        with suppress(KeyboardInterrupt):
            while True:  # a wait without end is not woken when one of Ray's threads receives the signal
                time.sleep(0.5)
        progress.say("serving: stopped")


def _check(ranker: Path, config: ServeConfig) -> None:
    require_artifact(ranker, "train")
    _require_free_port(config)


def _quiet_logging() -> dict[str, Any]:
    return {"log_level": "ERROR" if progress.verbosity() < 1 else "INFO", "enable_access_log": progress.verbosity() > 0}


def _require_free_port(config: ServeConfig) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            raise PrectrError(
                f"{config.host}:{config.port}: cannot listen there ({error.strerror}); give another serve.port."
            ) from None


def _wait_until_healthy(url: str) -> None:
    """Poll: the proxy may answer 404 for a moment after an application was deployed."""
    import httpx

    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/healthz", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise PrectrError(f"{url}: the ranker did not answer within {START_TIMEOUT_SECONDS} s; run again with -v.")


if __name__ == "__main__":
    from jobs.cli import run_job

    run_job("serve")

"""serve: a bundle over HTTP with Ray Serve."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prectr import progress
from prectr.bundle import require_bundle
from prectr.ray_session import RayConfig, ray_session
from prectr.serving import Served, require_free_port, serving_application, wait_for_interrupt
from prectr.online.config import ServeConfig

APPLICATION = Served("serve_apps.ranker", "ranker", "/healthz")


@contextmanager
def serving(ranker: Path, config: ServeConfig) -> Iterator[str]:
    """Serve a bundle on the running Ray for the block; gives the base URL once requests are answered.

    Raises:
        UsageError: no bundle there, or no int8 form of its encoders.
        PrectrError: the port is taken, or the application did not come up.
    """
    require_bundle(ranker, config.int8)
    arguments = {
        "bundle": str(ranker.resolve()),
        "replicas": config.replicas,
        "threads": config.threads,
        "max_ongoing_requests": config.max_ongoing_requests,
        "int8": config.int8,
    }
    with serving_application(APPLICATION, arguments, config) as url:
        yield url


def run(*, ranker: Path, config: ServeConfig, ray_config: RayConfig | None = None) -> None:
    """Serve until interrupted."""
    require_bundle(ranker, config.int8)  # before Ray starts
    require_free_port(config)
    with ray_session(ray_config), serving(ranker, config) as url:
        progress.say(f"serving {ranker} at {url}  (POST {url}/score, docs at {url}/docs; stop with Ctrl-C)")
        wait_for_interrupt()


if __name__ == "__main__":
    from jobs.cli import run_job

    run_job("serve")

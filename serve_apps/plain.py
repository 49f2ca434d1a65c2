"""The same API under plain uvicorn: one process, no Ray. For a container that scales by itself, and to compare with."""

from pathlib import Path

import uvicorn

from prectr.serving.config import ServeConfig
from prectr.serving.instruments import PrometheusInstruments
from prectr.serving.service import ScoringService
from serve_apps.http_api import create_app

MODULE = "serve_apps.plain"


def make_server(config: ServeConfig, watch: Path | None = None) -> uvicorn.Server:
    """A server that is not started yet; the models are loaded.

    Args:
        config: of serving.
        watch: a YAML file with the content of `serve.models`; the server changes to what it says whenever it changes.

    Raises:
        UsageError, PrectrError: as `ScoringService`.
    """
    instruments = PrometheusInstruments()
    app = create_app(ScoringService(config, instruments), config, instruments, watch)
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=round(config.drain_seconds),
        )
    )

"""The scoring API under uvicorn: one process without Ray, for containers that a platform scales, and as a baseline."""

from pathlib import Path

import uvicorn

from prectr.core.secrets import mask_logs
from prectr.serving.config import ServeConfig
from prectr.serving.instruments import PrometheusInstruments
from prectr.serving.request_log import write_to_stderr
from prectr.serving.service import ScoringService
from serve_apps.http_api import create_app
from serve_apps.request_limits import limited_protocol

MOST_DRAIN_SECONDS = 5.0
"""Most seconds that requests in flight get when the server stops, so that it ends within ten."""


def make_server(config: ServeConfig, watch: Path | None = None) -> uvicorn.Server:
    """Load the models and create a server that is not started yet.

    Args:
        config: settings of serving.
        watch: YAML file with the content of `serve.models`; the server reloads it when it changes. None: no file.

    Raises:
        UsageError, PrectrError: as `ScoringService`.
    """
    mask_logs()
    instruments = PrometheusInstruments()
    if config.request_log:
        write_to_stderr()
    app = create_app(ScoringService(config, instruments), config, instruments, watch)
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            log_level="warning",
            access_log=False,
            http=limited_protocol(config.security),
            timeout_graceful_shutdown=round(min(config.drain_seconds, MOST_DRAIN_SECONDS)),
        )
    )

"""The ranker on Ray Serve: replicas of a `ScoringService` behind HAProxy, each with the whole HTTP API.

Deploy it with `prectr serve RANKER`, or with `serve deploy serve_apps/ranker.yaml`. The `user_config` in that file
names the models and the experiment; deploy the file again to change them without a restart.
"""

import logging
import os
import secrets
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig
from ray.serve.schema import LoggingConfig

from prectr.core.config import load_config
from prectr.core.errors import PrectrError
from prectr.core.ray_session import memory_bytes
from prectr.core.secrets import mask_logs
from prectr.serving.config import ModelsConfig, ServeConfig
from prectr.serving.instruments import RayInstruments
from prectr.serving.models_history import history
from prectr.serving.request_log import write_to
from prectr.serving.service import ScoringService
from prectr.serving.tokens import BearerTokens
from serve_apps.http_api import create_app

logger = logging.getLogger("ray.serve")


class AppArguments(BaseModel):
    """Arguments of the Ray Serve application."""

    model_config = ConfigDict(extra="forbid")

    serve: ServeConfig = ServeConfig()
    """Settings of serving, as the section `serve` of the configuration."""
    watch: str | None = None
    """YAML file with the content of `serve.models`; replicas reload it when it changes. Null: no file."""


@serve.ingress()
class Ranker:
    """One replica: a scoring service with the HTTP API."""

    def __init__(self, config: dict[str, Any], watch: str | None, impression_key: str) -> None:
        mask_logs()
        self._config, self._watch = ServeConfig.model_validate(config), None if watch is None else Path(watch)
        if self._config.request_log:
            write_to(_log_files())
        self.service = open_service(self._config, self._watch, impression_key)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Create the application in the replica, because Serve would pickle one that is created earlier."""
        return create_app(self.service, self._config, watch=self._watch)

    async def reconfigure(self, models: dict[str, Any]) -> None:
        """Change the models; Serve calls this with `user_config` at the start and after a change."""
        if models:
            await self.service.reconfigure(ModelsConfig.model_validate(models))

    async def check_health(self) -> None:
        """Score the golden requests; Serve replaces a replica that fails this check."""
        await self.service.check_health()


def open_service(config: ServeConfig, watch: Path | None, impression_key: str) -> ScoringService:
    """Open a service with the models of the watched file, or if they are refused with those that were served last.

    So a wrong change of the file never stops a replica that starts after it. The service watches the file afterwards
    and then reports the refusal.

    Raises:
        PrectrError: none of these contents can be served.
    """
    instruments = RayInstruments()
    if watch is None or config.models.bundles:
        return ScoringService(config, instruments, impression_key)
    refusal: PrectrError | None = None
    for file in (watch, *(entry.path for entry in reversed(history(watch)))):
        try:
            models = config.model_copy(update={"models": load_config(ModelsConfig, file)})
            return ScoringService(models, instruments, impression_key)
        except PrectrError as error:
            logger.error("%s cannot be served: %s", file, error)
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _log_files() -> list[logging.Handler]:
    """Handlers of this replica's log file; Serve's own handler before them may hold back a thousand lines."""
    handlers = (getattr(handler, "target", None) for handler in logging.getLogger("ray.serve").handlers)
    return [handler for handler in handlers if handler is not None]


def build_app(arguments: AppArguments) -> Application:
    """Build the ranker as a Ray Serve application."""
    config = arguments.serve
    if not BearerTokens(config.security, os.environ):
        logger.warning("the ranker requires no token: it must listen on a loopback address only")
    deployment: Any = serve.deployment(
        name="Ranker",
        max_ongoing_requests=config.max_ongoing_requests,
        max_queued_requests=config.max_ongoing_requests,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=config.retry_after_seconds),
        graceful_shutdown_timeout_s=config.drain_seconds,
        user_config={},
        logging_config=LoggingConfig(encoding="JSON", enable_access_log=False),
        ray_actor_options={"num_cpus": config.cpus, "memory": memory_bytes(config.memory_gib)},
        **_replica_options(config),
    )(Ranker)
    # Where no keys are configured, all replicas get one that is made here; another deployment makes another.
    application: Application = deployment.bind(
        config.model_dump(mode="json"), arguments.watch, impression_key=secrets.token_hex(32)
    )
    return application


def _replica_options(config: ServeConfig) -> dict[str, Any]:
    """Options of a Serve deployment for the number of replicas."""
    if isinstance(config.replicas, int):
        return {"num_replicas": config.replicas}
    least, most = config.replicas
    autoscale = config.autoscale
    return {
        "autoscaling_config": {
            "min_replicas": least,
            "max_replicas": most,
            "target_ongoing_requests": autoscale.target_ongoing_requests,
            "upscale_delay_s": autoscale.upscale_delay_seconds,
            "downscale_delay_s": autoscale.downscale_delay_seconds,
        }
    }

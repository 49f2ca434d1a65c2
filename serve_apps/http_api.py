"""The scoring API: routes, limits and tokens around a `ScoringService`; the same with Ray Serve and without.

POST /v1/score     score and order the candidates of a query for a user
POST /v1/events    record shown lists and clicks
GET  /v1/models    served models and the experiment
GET  /healthz      health and default model
GET  /metrics      Prometheus metrics (without Ray only: Ray exports the metrics of all replicas by node)
GET  /             the playground
"""

import hashlib
import hmac
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prectr import __version__
from prectr.contracts.protocol import EventsRequest, EventsResponse, InvalidField, ScoreRequest, ScoreResponse
from prectr.core.errors import UsageError, quoted, shorten
from prectr.serving.batcher import Overloaded, TooLate
from prectr.serving.config import SecurityConfig, ServeConfig
from prectr.serving.instruments import PrometheusInstruments
from prectr.serving.service import ModelsAnswer, ScoringService, UnknownModel
from serve_apps.playground import add_playground

_TOKEN_MINIMUM = 16
"""Fewest characters of a bearer token."""


def create_app(
    service: ScoringService,
    config: ServeConfig,
    instruments: PrometheusInstruments | None = None,
    watch: Path | None = None,
) -> FastAPI:
    """Create the application.

    Args:
        service: answers the requests.
        config: settings of serving.
        instruments: metrics that `/metrics` returns; None: no such path.
        watch: YAML file of models to watch; see `ScoringService.watch`. None: no file.

    Raises:
        UsageError: the tokens cannot be read.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if watch is not None:
            service.watch(watch)
        yield
        await service.close()

    app = FastAPI(title="PRECTR-V2 ranker", version=__version__, lifespan=lifespan)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(InvalidField, _invalid_field)
    _add_scoring(app, service, config)
    if instruments is not None:

        @app.get("/metrics", include_in_schema=False)
        def metrics() -> Response:
            return Response(instruments.text(), media_type="text/plain; version=0.0.4")

    if config.playground:
        add_playground(app, service)
    security = config.security
    app.add_middleware(Guard, tokens=read_tokens(security, os.environ), max_body_bytes=security.max_body_bytes)
    if security.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(security.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
        )
    return app


def _add_scoring(app: FastAPI, service: ScoringService, config: ServeConfig) -> None:
    problems: dict[int | str, dict[str, Any]] = {
        401: {"description": "a valid bearer token is required"},
        413: {"description": "the body is too large"},
    }
    shed: dict[int | str, dict[str, Any]] = {
        429: {"description": "the queue is full; try again after Retry-After seconds"},
        504: {"description": "the request waited longer than its deadline"},
    }

    @app.post("/v1/score", response_model=ScoreResponse, responses={**problems, **shed})
    async def score(
        request: ScoreRequest,
        x_request_timeout_seconds: Annotated[
            float | None, Header(gt=0, le=3600, description="seconds that the request may wait")
        ] = None,
    ) -> Response:
        """Click probability, relevance levels, tau and final order of a query's candidates."""
        try:
            response = await service.score(request, x_request_timeout_seconds)
        except Overloaded:
            retry = {"Retry-After": str(config.retry_after_seconds)}
            raise HTTPException(429, "too many requests wait; try again later", retry) from None
        except TooLate:
            raise HTTPException(504, "the request waited longer than its deadline") from None
        except UnknownModel as error:
            message = f"no model {quoted(str(error))} is served"
            raise HTTPException(422, [_problem("model", message=message)]) from None
        except ValueError as error:
            raise HTTPException(422, [_problem("candidates", message=shorten(error))]) from None
        # Serialised here, because FastAPI would validate every number of the response again.
        return Response(response.model_dump_json(), media_type="application/json")

    @app.post("/v1/events", responses=problems)
    async def events(request: EventsRequest) -> EventsResponse:
        """Record shown lists and clicks; the next request of a user is scored with them."""
        return await service.record_events(request.events)

    @app.get("/v1/models", responses={401: problems[401]})
    async def models() -> ModelsAnswer:
        """Served models, the experiment, and the age of the state."""
        return service.describe()

    @app.get("/healthz")
    async def health() -> dict[str, str]:
        """Health and default model, for `prectr serve` and load balancers."""
        default = service.default
        return {"status": "ok", "model": default.name, "version": default.bundle.version}


async def _invalid(_: Request, error: Exception) -> Response:
    """Answer an invalid request with its problems by field, without its content, which may be large or not text."""
    assert isinstance(error, RequestValidationError)
    detail = [{name: problem[name] for name in ("type", "loc", "msg")} for problem in error.errors()]
    return Response(json.dumps({"detail": detail}), 422, media_type="application/json")


async def _invalid_field(_: Request, error: Exception) -> Response:
    """Answer a request with a field that the settings refuse."""
    assert isinstance(error, InvalidField)
    return Response(
        json.dumps({"detail": [_problem(*error.path, message=str(error))]}), 422, media_type="application/json"
    )


def _problem(*path: str | int, message: str) -> dict[str, Any]:
    """A problem of a field, in the form of FastAPI's validation errors."""
    return {"type": "value_error", "loc": ["body", *path], "msg": message}


def read_tokens(security: SecurityConfig, environment: Mapping[str, str]) -> list[str]:
    """Read the bearer tokens that the server accepts; an empty list: the server requires no token.

    Args:
        security: names the file or the environment variable of the tokens.
        environment: environment variables.

    Raises:
        UsageError: the file cannot be read or holds no token, or a token is too short.
    """
    if security.tokens_file is not None:
        source = str(security.tokens_file)
        try:
            lines = security.tokens_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{source}: the tokens cannot be read ({shorten(error)}).") from None
        tokens = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not tokens:
            raise UsageError(f"{source}: holds no token; write one token per line.")
    else:
        source = security.tokens_environment
        tokens = [token.strip() for token in environment.get(source, "").split(",") if token.strip()]
    if any(len(token) < _TOKEN_MINIMUM for token in tokens):
        raise UsageError(
            f"{source}: a token has fewer than {_TOKEN_MINIMUM} characters; `openssl rand -hex 32` generates one."
        )
    return tokens


class Guard:
    """Middleware that checks the token and the body size of a request and adds security headers to the response."""

    def __init__(self, app: ASGIApp, tokens: Sequence[str], max_body_bytes: int) -> None:
        self._app, self._max_body_bytes = app, max_body_bytes
        self._digests = [hashlib.sha256(token.encode()).digest() for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        protected = scope["path"].startswith("/v1/") and scope["method"] != "OPTIONS"
        if protected and not self._allowed(headers.get(b"authorization", b"")):
            await _refuse(send, 401, "a valid bearer token is required", [(b"www-authenticate", b"Bearer")])
            return
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._max_body_bytes:
            await _refuse(
                send, 413, f"the body has more than {self._max_body_bytes} bytes", [(b"connection", b"close")]
            )
            return
        await self._app(scope, self._bounded(receive), _with_headers(send))

    def _allowed(self, header: bytes) -> bool:
        if not self._digests:
            return True
        scheme, _, token = header.partition(b" ")
        digest = hashlib.sha256(token.strip()).digest()
        # Compares with all tokens, each in constant time, so that the time reveals no token.
        matches = [hmac.compare_digest(digest, valid) for valid in self._digests]
        return scheme.lower() == b"bearer" and any(matches)

    def _bounded(self, receive: Receive) -> Receive:
        """Limit the body while it is received, because the content-length header may be missing or wrong."""
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_body_bytes:
                raise HTTPException(413, f"the body has more than {self._max_body_bytes} bytes")
            return message

        return bounded


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message.get("headers", []),
                (b"x-content-type-options", b"nosniff"),
                (b"cache-control", b"no-store"),
            ]
        await send(message)

    return send_with_headers


async def _refuse(send: Send, status: int, detail: str, headers: list[tuple[bytes, bytes]]) -> None:
    body = json.dumps({"detail": detail}).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})

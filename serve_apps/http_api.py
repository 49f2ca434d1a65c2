"""The scoring API: routes, limits and tokens around a `ScoringService`; the same with Ray Serve and without.

POST /v1/score     score and order the candidates of a query for a user
POST /v1/events    record shown lists and clicks
GET  /v1/models    served models and the experiment
GET  /healthz      liveness: the process answers
GET  /readyz       readiness: 503 with the reason while no requests should be sent here
GET  /metrics      Prometheus metrics (without Ray only: Ray exports the metrics of all replicas by node)
GET  /docs         documentation of the API, from /openapi.json
GET  /             the playground
"""

import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware

from prectr import __version__
from prectr.contracts.protocol import EventsRequest, EventsResponse, InvalidField, ScoreRequest, ScoreResponse
from prectr.core.errors import quoted, shorten
from prectr.serving.batcher import Overloaded, TooLate
from prectr.serving.config import ServeConfig
from prectr.serving.event_recorder import TooManyEvents, Unproved
from prectr.serving.instruments import PrometheusInstruments
from prectr.serving.service import ModelsAnswer, ScoringService, UnknownModel
from prectr.serving.tokens import BearerTokens
from serve_apps.api_docs import add_docs
from serve_apps.guard import MAY_REPORT, RECEIVED, SENT_TOKEN, Guard
from serve_apps.playground import add_playground

_MINUTE = 60


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
        service.report()
        if watch is not None:
            service.watch(watch)
        yield
        await service.close()

    app = FastAPI(title="PRECTR-V2 ranker", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    add_docs(app)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(InvalidField, _invalid_field)
    _add_scoring(app, service, config)
    if instruments is not None:

        @app.get("/metrics", include_in_schema=False)
        def metrics() -> Response:
            return Response(instruments.text(), media_type="text/plain; version=0.0.4")

    if config.playground:
        add_playground(app, service, config.playground_users)
    security = config.security
    tokens = BearerTokens(security, os.environ)
    app.add_middleware(Guard, tokens=tokens, config=config, beside_scores=service.beside_scores)
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
        403: {"description": "the token lacks a scope, or an impression token is not valid"},
        413: {"description": "the body is too large"},
    }
    shed: dict[int | str, dict[str, Any]] = {
        429: {"description": "the queue is full; try again after Retry-After seconds"},
        504: {"description": "the request waited longer than its deadline"},
    }
    limited: dict[int | str, dict[str, Any]] = {
        429: {
            "description": "the queue of events is full, or the users of all events have sent too many lists; try "
            "again after Retry-After seconds"
        },
    }

    @app.post("/v1/score", response_model=ScoreResponse, responses={**problems, **shed})
    async def score(
        request: ScoreRequest,
        http: Request,
        x_request_timeout_seconds: Annotated[
            float | None, Header(gt=0, le=3600, description="seconds that the request may wait")
        ] = None,
    ) -> Response:
        """Click probability, relevance levels, tau and final order of a query's candidates."""
        patience = config.deadline_ms / 1000
        if x_request_timeout_seconds is not None:
            patience = min(patience, x_request_timeout_seconds)
        try:
            response = await service.score(request, patience - (time.perf_counter() - http.scope[RECEIVED]))
        except Overloaded:
            raise _try_later("too many requests wait; try again later", config.retry_after_seconds) from None
        except TooLate:
            raise HTTPException(504, "the request waited longer than its deadline") from None
        except UnknownModel as error:
            message = f"no model {quoted(str(error))} is served"
            raise HTTPException(422, [_problem("model", message=message)]) from None
        except ValueError as error:
            raise HTTPException(422, [_problem("candidates", message=shorten(error))]) from None
        # Serialised here, because FastAPI would validate every number of the response again.
        return Response(response.model_dump_json(), media_type="application/json")

    @app.post("/v1/events", responses={**problems, **limited})
    async def events(request: EventsRequest, http: Request) -> EventsResponse:
        """Record shown lists and clicks; the next request of a user is scored with them.

        A list that brings the impression token of its response needs no bearer token. All others need one of the scope
        `events`, and their number is limited by user and minute.
        """
        try:
            return await service.record_events(request.events, http.scope[MAY_REPORT])
        except Unproved as error:
            problem = [_problem("events", error.number, message=str(error))]
            if http.scope[SENT_TOKEN]:
                raise HTTPException(403, problem) from None
            raise HTTPException(401, problem, {"WWW-Authenticate": "Bearer"}) from None
        except Overloaded:
            raise _try_later("too many events wait; try again later", config.retry_after_seconds) from None
        except TooManyEvents:
            message = "the users of these events have sent too many lists; try again later"
            raise _try_later(message, _MINUTE) from None

    @app.get("/v1/models", responses={401: problems[401]})
    async def models() -> ModelsAnswer:
        """Served models, the experiment, and the age of the state."""
        return service.describe()

    @app.get("/healthz")
    async def health() -> dict[str, str]:
        """Liveness: the process answers; restart it if it does not."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: {"description": "no requests should be sent here; `detail` is the reason"}})
    async def ready() -> dict[str, str]:
        """Readiness and the default model: golden requests scored as in training, and the server is not stopping."""
        if (reason := service.unready()) is not None:
            raise HTTPException(503, reason)
        default = service.default
        return {"status": "ready", "model": default.name, "version": default.bundle.version}


def _try_later(message: str, seconds: int) -> HTTPException:
    return HTTPException(429, message, {"Retry-After": str(seconds)})


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

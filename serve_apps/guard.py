"""Middleware of the scoring API: bearer tokens with scopes, and sizes of bodies."""

import base64
import binascii
import json
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prectr.serving.config import ServeConfig
from prectr.serving.tokens import BearerTokens

ADMIN_PATHS = ("/docs", "/openapi.json", "/metrics")
"""Paths, and those below them, that require the scope `admin`."""
EVENTS = "/v1/events"
MAY_REPORT, SENT_TOKEN, RECEIVED = "prectr.may_report", "prectr.sent_token", "prectr.received"
"""Keys of the ASGI scope: whether the sender may report events without an impression token, whether it sent a bearer
token, and the value of `time.perf_counter` when the body had arrived."""


class Guard:
    """Checks the token and the body size of a request and adds security headers to the response.

    | path | needs |
    |---|---|
    | `/v1/events` | nothing here: impression tokens decide, or the scope `events` |
    | `/v1/models` | any token |
    | other paths of `/v1` | the scope `score` |
    | `ADMIN_PATHS` | the scope `admin`, as a bearer token or as the password of HTTP's basic scheme, for browsers |
    | others: the playground's page, health | nothing |

    Args:
        app: the application.
        tokens: valid tokens; without any, nothing requires one.
        config: sizes of bodies.
        beside_scores: makes the context in which a request with events is read and answered.
    """

    def __init__(
        self,
        app: ASGIApp,
        tokens: BearerTokens,
        config: ServeConfig,
        beside_scores: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        self._app, self._tokens, self._beside_scores = app, tokens, beside_scores
        self._max_body_bytes = config.security.max_body_bytes
        self._max_event_bytes = min(config.event_bytes, config.security.max_body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, path = dict(scope["headers"]), scope["path"]
        scopes = self._scopes_of(headers.get(b"authorization", b""), path)
        scope[MAY_REPORT], scope[SENT_TOKEN] = "events" in (scopes or ()), scopes is not None
        if scope["method"] != "OPTIONS" and (refusal := _refusal(path, scopes)):
            await _refuse(send, *refusal)
            return
        most = self._max_event_bytes if path == EVENTS else self._max_body_bytes
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > most:
            await _refuse(send, 413, f"the body has more than {most} bytes", [(b"connection", b"close")])
            return
        async with self._beside_scores() if path == EVENTS else nullcontext():
            await self._app(scope, _bounded(scope, receive, most), _with_headers(send))

    def _scopes_of(self, header: bytes, path: str) -> frozenset[str] | None:
        """Scopes of the request's token; None without a valid one."""
        scheme, _, token = header.partition(b" ")
        token = token.strip()
        if scheme.lower() == b"basic" and _is_admin(path):
            try:
                scheme, token = b"bearer", base64.b64decode(token, validate=True).partition(b":")[2]
            except binascii.Error:
                return None
        return self._tokens.scopes_of(token if scheme.lower() == b"bearer" else b"")


def _is_admin(path: str) -> bool:
    return any(path == admin or path.startswith(f"{admin}/") for admin in ADMIN_PATHS)


def _refusal(path: str, scopes: frozenset[str] | None) -> tuple[int, str, list[tuple[bytes, bytes]]] | None:
    """Status, reason and headers with which a path refuses the scopes of a request; None: it does not."""
    admin = _is_admin(path)
    if path == EVENTS or not (admin or path.startswith("/v1/")):
        return None
    if scopes is None:
        schemes = b'Bearer, Basic realm="token of scope admin as password"' if admin else b"Bearer"
        return 401, "a valid bearer token is required", [(b"www-authenticate", schemes)]
    needed = "admin" if admin else "score"
    if path != "/v1/models" and needed not in scopes:
        return 403, f"the token has no scope {needed}", []
    return None


def _bounded(scope: Scope, receive: Receive, most_bytes: int) -> Receive:
    """Limit the body while it is received, because the content-length header may be missing or wrong."""
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > most_bytes:
            raise HTTPException(413, f"the body has more than {most_bytes} bytes")
        if not message.get("more_body", False):
            scope.setdefault(RECEIVED, time.perf_counter())
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

"""Limits of the plain server on the head and body of a request, tried with raw connections."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request

from prectr.serving.config import ModelsConfig, SecurityConfig, ServeConfig
from serve_apps.plain import make_server
from serve_apps.request_limits import LimitedProtocol, limited_protocol
from tests.prectr.bundle_world import World
from tests.processes import free_port
from tests.serve_apps.conftest import running

SECURITY = SecurityConfig(max_header_bytes=4_000, header_seconds=0.6, body_seconds=1.2)
BODY = json.dumps({"user_id": "u0", "query": "phone", "candidates": ["i0", "i1"]}).encode()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    app = FastAPI()

    @app.post("/v1/score")
    async def length(request: Request) -> int:
        return len(await request.body())

    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, log_level="error", http=limited_protocol(SECURITY))  # as `make_server` does
    )
    with running(server) as url:
        yield url


def test_the_plain_server_has_the_limits(world: World, tmp_path: Path) -> None:
    models = ModelsConfig(bundles={"m": Path(world.bundle)})
    server = make_server(ServeConfig(models=models, security=SECURITY, events=tmp_path))
    application: Any = server.config.app
    asyncio.run(application.state.service.close())  # a process maps a state once
    protocol = server.config.http
    assert isinstance(protocol, type) and issubclass(protocol, LimitedProtocol)
    assert (protocol.max_header_bytes, protocol.header_seconds, protocol.body_seconds) == (4_000, 0.6, 1.2)


def _connect(url: str) -> socket.socket:
    place = urlsplit(url)
    return socket.create_connection((place.hostname, place.port), timeout=10)


def _rest(connection: socket.socket) -> tuple[bytes, float]:
    """All that the server sends until it closes the connection, and the seconds until then."""
    started, received = time.monotonic(), b""
    try:
        while data := connection.recv(65_536):
            received += data
    except ConnectionResetError:
        pass
    return received, time.monotonic() - started


def _head(*headers: bytes) -> bytes:
    return b"\r\n".join([b"POST /v1/score HTTP/1.1", b"host: x", b"content-type: application/json", *headers, b"", b""])


@pytest.mark.parametrize("pieces", [1, 40])
def test_a_head_that_is_too_large_is_refused(url: str, pieces: int) -> None:
    with _connect(url) as connection:
        head = _head(*(b"x-%d: %s" % (number, b"a" * 100) for number in range(50)))
        size = len(head) // pieces + 1
        try:
            for start in range(0, len(head), size):
                connection.sendall(head[start : start + size])
                time.sleep(0.002)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert _rest(connection)[0].startswith(b"HTTP/1.1 431 ")


def test_one_header_without_an_end_is_refused(url: str) -> None:
    with _connect(url) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nx: ")
        time.sleep(0.2)  # the first piece of a head may be of any size: a later one decides
        for _ in range(5):
            connection.sendall(b"a" * 1_000)
            time.sleep(0.01)
        assert _rest(connection)[0].startswith(b"HTTP/1.1 431 ")


def test_a_head_that_trickles_in_is_cut_in_time(url: str) -> None:
    with _connect(url) as connection:
        started = time.monotonic()
        connection.settimeout(0.1)
        answer = b""
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        while time.monotonic() - started < 5 and not answer:
            connection.sendall(b"x: y\r\n")
            try:
                answer = connection.recv(1_000)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert 0.5 < time.monotonic() - started < 3


def test_a_connection_that_sends_nothing_is_closed(url: str) -> None:
    with _connect(url) as connection:
        answer, seconds = _rest(connection)
        assert answer == b"" and 0.5 < seconds < 3


def test_a_body_that_does_not_end_is_cut_in_time(url: str) -> None:
    with _connect(url) as connection:
        connection.sendall(_head(b"content-length: 500") + b"{")
        answer, seconds = _rest(connection)
        assert answer.startswith(b"HTTP/1.1 408 ") and 1.0 < seconds < 4


def test_a_slow_request_within_the_limits_and_the_next_ones_are_answered(url: str) -> None:
    with _connect(url) as connection:
        for _ in range(2):
            message = _head(b"content-length: %d" % len(BODY)) + BODY
            for start in range(0, len(message), 60):
                connection.sendall(message[start : start + 60])
                time.sleep(0.05)
            connection.settimeout(10)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
    with httpx.Client(base_url=url) as client:
        for _ in range(3):
            assert client.post("/v1/score", content=BODY, headers={"content-type": "application/json"}).is_success
            time.sleep(0.8)  # longer than the time for a head: an idle connection is not one that sends slowly

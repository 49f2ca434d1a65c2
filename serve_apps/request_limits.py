"""uvicorn's HTTP protocol with limits on the size and time of a request's head and on the time of its body.

uvicorn has none of them. Behind Ray Serve, HAProxy bounds the head instead.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from prectr.serving.config import SecurityConfig

_ANSWERS = {
    408: b"HTTP/1.1 408 Request Timeout\r\n",
    431: b"HTTP/1.1 431 Request Header Fields Too Large\r\n",
}


class LimitedProtocol(HttpToolsProtocol):
    """A connection. A request that comes in one piece costs no timer."""

    max_header_bytes = SecurityConfig().max_header_bytes
    header_seconds = SecurityConfig().header_seconds
    body_seconds = SecurityConfig().body_seconds

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._in_head = self._in_body = self._too_large = False
        self._head_received = self._head_parsed = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timed = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time of the first head."""
        super().connection_made(transport)
        self._time("head", self.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._time("", 0)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse data, then check the size of an incomplete head and start or stop the timer."""
        if self._in_head:
            self._head_received += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            self._time("", 0)
        elif self._in_head:
            if self._head_received > self.max_header_bytes:
                self._refuse(431)
            else:
                self._time("head", self.header_seconds)
        elif self._in_body:
            self._time("body", self.body_seconds)
        else:
            self._time("", 0)

    def on_message_begin(self) -> None:
        """Count the head of the next request."""
        super().on_message_begin()
        self._in_head, self._head_received, self._head_parsed = True, 0, 0

    def on_url(self, url: bytes) -> None:
        """Count the target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Go on to the body."""
        self._in_head, self._in_body = False, True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the request."""
        self._in_body = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that cannot be parsed, or whose head was refused on the way."""
        if self._too_large:
            self._refuse(431)
        else:
            super().send_400_response(msg)

    def _count(self, size: int) -> None:
        self._head_parsed += size
        if self._head_parsed > self.max_header_bytes:
            self._too_large = True
            raise ValueError("the head is too large")  # stops the parser, which then calls `send_400_response`

    def _time(self, part: str, seconds: float) -> None:
        """Let the timer run for a part of the request; the time of a part is not prolonged by more data."""
        if part == self._timed:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timed = part
        if part:
            self._timer = self.loop.call_later(seconds, self._refuse, 408)

    def _refuse(self, status: int) -> None:
        if self.transport.is_closing():
            return
        # A new connection that sends nothing gets no answer, like an idle one between two requests.
        idle = status == 408 and not (self._in_head or self._in_body)
        answering = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not (idle or answering):
            self.transport.write(_ANSWERS[status] + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()


def limited_protocol(security: SecurityConfig) -> type[LimitedProtocol]:
    """Class of the connections of a server with these limits."""

    class Connection(LimitedProtocol):
        max_header_bytes = security.max_header_bytes
        header_seconds = security.header_seconds
        body_seconds = security.body_seconds

    return Connection

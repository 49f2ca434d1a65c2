"""Redis with little patience: a request waits for it once at most, and while it is down nobody waits at all."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from prectr.core.errors import UsageError

KEY_PREFIX = "prectr"
Answer = TypeVar("Answer")


class StoreDown(Exception):
    """Redis does not answer."""


class RedisGuard:
    """Calls Redis; after a call that failed, `retry_seconds` pass before the next one is tried.

    Args:
        url: redis://HOST:PORT/DB, or rediss:// with TLS.
        timeout_seconds: of one answer.
        retry_seconds: for which Redis is left alone after a failure.

    Raises:
        UsageError: the URL is none.
    """

    def __init__(self, url: str, timeout_seconds: float, retry_seconds: float) -> None:
        import redis

        try:
            self._client: Any = redis.Redis.from_url(
                url, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds
            )
        except ValueError as error:
            raise UsageError(f"{url}: no address of a Redis server ({error}); write redis://HOST:PORT/DB.") from None
        self._retry_seconds, self._retry_at = retry_seconds, 0.0
        self.failures = 0

    def call(self, ask: Callable[[Any], Answer]) -> Answer:
        """What `ask` gets from the client.

        Raises:
            StoreDown: Redis does not answer, or did not a moment ago.
        """
        import redis

        if time.monotonic() < self._retry_at:
            raise StoreDown
        try:
            return ask(self._client)
        except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError, redis.ReadOnlyError) as error:
            self.failures += 1
            self._retry_at = time.monotonic() + self._retry_seconds
            raise StoreDown from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

"""Redis client with a circuit breaker: after a failure, calls fail at once until a retry time has passed."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from prectr.core.errors import UsageError

KEY_PREFIX = "prectr"
Answer = TypeVar("Answer")


class StoreDown(Exception):
    """Redis does not answer."""


class RedisGuard:
    """Calls Redis; after a failed call, further calls fail at once for `retry_seconds`.

    Args:
        url: redis://HOST:PORT/DB, or rediss:// with TLS.
        timeout_seconds: seconds to wait for an answer.
        retry_seconds: seconds after a failure before the next attempt.

    Raises:
        UsageError: the URL is not valid.
    """

    def __init__(self, url: str, timeout_seconds: float, retry_seconds: float) -> None:
        import redis

        try:
            self._client: Any = redis.Redis.from_url(
                url, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds
            )
        except ValueError as error:
            raise UsageError(f"{url}: not a Redis address ({error}); write redis://HOST:PORT/DB.") from None
        self._retry_seconds, self._retry_at = retry_seconds, 0.0

    def call(self, command: Callable[[Any], Answer]) -> Answer:
        """Call `command` with the client and return its result.

        Raises:
            StoreDown: Redis does not answer, or failed less than `retry_seconds` ago.
        """
        import redis

        if time.monotonic() < self._retry_at:
            raise StoreDown
        try:
            return command(self._client)
        except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError, redis.ReadOnlyError) as error:
            self._retry_at = time.monotonic() + self._retry_seconds
            raise StoreDown from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

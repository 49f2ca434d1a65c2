"""Redis client with a circuit breaker: after a failure, calls fail at once until a retry time has passed.

User and password come from environment variables or a file, so that no URL needs to hold them.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from prectr.core.errors import UsageError, shorten

USERNAME, PASSWORD, PASSWORD_FILE = "PRECTR_REDIS_USERNAME", "PRECTR_REDIS_PASSWORD", "PRECTR_REDIS_PASSWORD_FILE"
"""Environment variables of the Redis user, of the password, and of a file that holds the password."""
KEY_PREFIX = "prectr"
Answer = TypeVar("Answer")


class StoreDown(Exception):
    """Redis does not answer."""


class RedisGuard:
    """Calls Redis; after a failed call, further calls fail at once for `retry_seconds`.

    User and password are those of the URL, else those of the environment. They are read again for each new connection,
    so that a changed password file counts.

    Args:
        url: redis://HOST:PORT/DB, or rediss:// with TLS.
        timeout_seconds: seconds to wait for an answer.
        retry_seconds: seconds after a failure before the next attempt.

    Raises:
        UsageError: the URL is not valid, or the password file cannot be read.
    """

    def __init__(self, url: str, timeout_seconds: float, retry_seconds: float) -> None:
        import redis

        try:
            options = redis.connection.parse_url(url)
        except ValueError:  # its message may hold a part of the password
            scheme = url.partition("://")[0]
            raise UsageError(f"{scheme}://...: not a Redis address; write redis://HOST:PORT/DB.") from None
        if "password" not in options and _credentials():
            options["credential_provider"] = _provider(options.pop("username", None))
        self._client: Any = redis.Redis.from_pool(
            redis.ConnectionPool(**options, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds)
        )
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


def _credentials(username: str | None = None) -> tuple[str, ...]:
    """User and password, only the password, or nothing, of the environment.

    Raises:
        UsageError: the password file cannot be read.
    """
    file, password = os.environ.get(PASSWORD_FILE), os.environ.get(PASSWORD, "")
    if file:
        try:
            password = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{PASSWORD_FILE} {file}: the password cannot be read ({shorten(error)}).") from None
    username = username or os.environ.get(USERNAME)
    if not password:
        return ()
    return (username, password) if username else (password,)


def _provider(username: str | None) -> Any:
    """Redis's source of user and password, asked for each new connection."""
    import redis

    class Environment(redis.CredentialProvider):
        def get_credentials(self) -> tuple[str, ...]:
            try:
                return _credentials(username)
            except UsageError as error:  # such as a file that is just replaced
                raise redis.ConnectionError(str(error)) from None

    return Environment()

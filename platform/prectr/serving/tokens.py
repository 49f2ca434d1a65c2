"""Secrets of a server that may change while it runs: bearer tokens with their scopes, and keys.

They come from a file, which is watched, or from an environment variable. All entries of a file are valid together, so a
rotation writes the new entry beside the old one, waits until all clients and replicas have the new one, and removes the
old one. A file that has become unreadable or empty changes nothing; the error is logged.
"""

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Generic, Literal, TypeVar, get_args

from prectr.core.errors import UsageError, quoted, shorten
from prectr.serving.config import SecurityConfig

SHORTEST = 16
"""Fewest characters of a token or key."""
LOOK_SECONDS = 2.0
"""Seconds between checks of a file."""
Scope = Literal["score", "events", "admin"]
SCOPES: frozenset[str] = frozenset(get_args(Scope))
Secrets = TypeVar("Secrets")

logger = logging.getLogger("ray.serve")


class _Watched(Generic[Secrets]):
    """Secrets from a file, read again when it changes, or from an environment variable."""

    _what: str
    """Name of the secrets, for messages."""

    def __init__(self, file: Path | None, variable: str, environment: Mapping[str, str]) -> None:
        self._file, self._stamp, self._looked = file, self._read_stamp(file), time.monotonic()
        if file is None:
            entries = environment.get(variable, "").split(",")
            self._current = self._parse(variable, [entry.strip() for entry in entries if entry.strip()])
        else:
            self._current = self._load(file)

    def current(self) -> Secrets:
        """The secrets of now; the file is checked every few seconds."""
        if self._file is not None and time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            stamp = self._read_stamp(self._file)
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._current = self._load(self._file)
                    logger.info("%s: the %s have changed", self._file, self._what)
                except UsageError as error:
                    logger.error("the %s are not changed: %s", self._what, error)
        return self._current

    def _load(self, file: Path) -> Secrets:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{file}: the {self._what} cannot be read ({shorten(error)}).") from None
        entries = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not entries:
            raise UsageError(f"{file}: holds no {self._what}; write one per line.")
        return self._parse(str(file), entries)

    def _parse(self, source: str, entries: Sequence[str]) -> Secrets:
        raise NotImplementedError

    @staticmethod
    def _read_stamp(file: Path | None) -> tuple[int, int, int] | None:
        try:
            status = file.stat() if file is not None else None
        except OSError:
            return None
        return status and (status.st_mtime_ns, status.st_size, status.st_ino)


class BearerTokens(_Watched[dict[bytes, frozenset[str]]]):
    """Bearer tokens and their scopes.

    An entry is a token and, after blanks, its scopes: `score` (scores, playground), `events` (events without an
    impression token), `admin` (documentation, metrics). A token without scopes has the scope `score`.

    Args:
        security: names the file or the environment variable.
        environment: environment variables.

    Raises:
        UsageError: the file cannot be read or holds no token, a token is too short, or a scope is unknown.
    """

    _what = "tokens"

    def __init__(self, security: SecurityConfig, environment: Mapping[str, str]) -> None:
        self._by_scope: dict[str, str] = {}
        super().__init__(security.tokens_file, security.tokens_environment, environment)

    def __bool__(self) -> bool:
        return bool(self._current)

    def scopes_of(self, token: bytes) -> frozenset[str] | None:
        """Scopes of a token as a client sent it; None if it is not valid. Without any tokens, everybody has all."""
        tokens = self.current()
        if not tokens:
            return SCOPES
        digest = hashlib.sha256(token).digest()
        # Compares with all tokens, each in constant time, so that the time reveals no token.
        matches = [scopes for valid, scopes in tokens.items() if hmac.compare_digest(digest, valid)]
        return matches[0] if matches else None

    def first_with(self, scope: Scope) -> str | None:
        """First token with a scope, for requests of the server's own command; None without one."""
        return self._by_scope.get(scope)

    def _parse(self, source: str, entries: Sequence[str]) -> dict[bytes, frozenset[str]]:
        tokens: dict[bytes, frozenset[str]] = {}
        by_scope: dict[str, str] = {}
        for entry in entries:
            token, *scopes = entry.split()
            _require_long(source, "token", token)
            for scope in scopes:
                if scope not in SCOPES:
                    raise UsageError(
                        f"{source}: {quoted(scope)} is no scope; a token has {', '.join(get_args(Scope))}."
                    )
            tokens[hashlib.sha256(token.encode()).digest()] = frozenset(scopes or ["score"])
            for scope in scopes or ["score"]:
                by_scope.setdefault(scope, token)
        self._by_scope = by_scope
        return tokens


class ImpressionKeys(_Watched[list[bytes]]):
    """Keys of impression tokens, the newest first; without any, one that is made for this process.

    Args:
        security: names the file or the environment variable.
        environment: environment variables.
        made: key to use if none is configured; None: a random one.

    Raises:
        UsageError: the file cannot be read or holds no key, or a key is too short.
    """

    _what = "impression keys"

    def __init__(self, security: SecurityConfig, environment: Mapping[str, str], made: str | None = None) -> None:
        self._made = (made or secrets.token_hex(32)).encode()
        super().__init__(security.impression_keys_file, security.impression_keys_environment, environment)

    def _parse(self, source: str, entries: Sequence[str]) -> list[bytes]:
        for entry in entries:
            _require_long(source, "key", entry)
        return [entry.encode() for entry in entries] or [self._made]


def _require_long(source: str, what: str, secret: str) -> None:
    if len(secret) < SHORTEST:
        raise UsageError(
            f"{source}: a {what} has fewer than {SHORTEST} characters; `openssl rand -hex 32` generates one."
        )

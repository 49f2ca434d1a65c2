"""The request log: one line of JSON for each scoring request, without the user's id and without the query.

    {"time": "2026-03-02T10:26:45.582Z", "request_id": "r1", "user": "5f0c3a91be27d604", "model": "champion",
     "variant": "none", "outcome": "answered", "candidates": 20, "milliseconds": 6.1}

`user` is a pseudonym: HMAC-SHA256 of the id with a secret key. With the key, the lines of one user can be joined over
replicas and restarts, and whoever holds the key can compute the pseudonym of a known id. Without it, nobody can.
"""

import hashlib
import hmac
import json
import logging
import os
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from prectr.contracts.protocol import ScoreRequest

KEY_VARIABLE = "PRECTR_REQUEST_LOG_KEY"
"""Environment variable with the key of the users' pseudonyms."""
FIELDS = ("time", "request_id", "user", "model", "variant", "outcome", "candidates", "milliseconds")
_PSEUDONYM_LENGTH = 16

logger = logging.getLogger("prectr.requests")


class RequestLog:
    """Writes a line for each request.

    Args:
        key: of the users' pseudonyms; None: that of the environment, or if it is unset a random one, so that
            pseudonyms are equal within this process only.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or os.environ.get(KEY_VARIABLE, "").encode() or secrets.token_bytes(32)

    def write(
        self, request: ScoreRequest, model: str, variant: str, outcome: str, seconds: float, request_id: str | None
    ) -> None:
        """Write the line of a request that was answered or refused after `seconds`."""
        now = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        user = hmac.new(self._key, request.user_id.encode(), hashlib.sha256).hexdigest()[:_PSEUDONYM_LENGTH]
        values = (now, request_id, user, model, variant, outcome, len(request.candidates), round(1000 * seconds, 2))
        logger.info("request", extra=dict(zip(FIELDS, values)))


class JsonLine(logging.Formatter):
    """Formats a line without Ray; Ray Serve's JSON format holds the same fields beside its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The fields as a JSON object."""
        return json.dumps({name: getattr(record, name) for name in FIELDS})


def write_to(handlers: Sequence[logging.Handler]) -> None:
    """Write the lines to these handlers only."""
    logger.handlers[:] = handlers
    logger.propagate = False
    logger.setLevel(logging.INFO)


def write_to_stderr() -> None:
    """Write the lines to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLine())
    write_to([handler])

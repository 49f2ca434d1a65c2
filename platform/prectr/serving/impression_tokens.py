"""Impression tokens: proof that this service ranked a list, so that anyone who holds the list may report it [ours].

`score` signs the request id, the user, the query and the returned items; an event that brings the token may report
these items of this list for this user, and nothing else.

    token    = base64url(version | expiry | h(item_1) ... h(item_n) | MAC)
    h(item)  = 4 bytes of BLAKE2b(item), keyed by HMAC(key, "items" | request | user)
    MAC      = 16 bytes of HMAC-SHA256(key, version ... h(item_n) | request | user | query)

    symbol   meaning
    key      a secret of the service, the same in all of its replicas
    expiry   seconds since 1970, 4 bytes
    request, user, query
             the ids as sent, and the normal form of the query; each with its length before it

The items are hashed one by one, because a page shows only some of the returned items. Without the key nobody can
compute an item's hash, so the only way to report a foreign item is to try about 2^32 / n of them.
"""

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable, Sequence

from prectr.contracts.protocol import Event
from prectr.core.text import normalise_query

_VERSION = b"\x01"
_EXPIRY = slice(1, 5)
_HEAD, _HASH, _MAC = 5, 4, 16


class InvalidImpression(ValueError):
    """An impression token does not prove the event that brings it.

    Attributes:
        reason: `expired`, or `forged` for all other faults.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ImpressionTokens:
    """Signs the lists of responses and checks the tokens of events.

    Args:
        keys: returns the keys, the newest first: it signs, and all of them are valid.
        hours: hours until a token expires.

    Example:
        >>> tokens = ImpressionTokens(lambda: [b"a secret of 16 bytes or more"], hours=24)
        >>> token = tokens.sign("r1", "u1", "nokia", ["i1", "i2"])
        >>> shown = [{"item_id": "i2", "position": 1, "clicked": True}]
        >>> event = {"request_id": "r1", "user_id": "u1", "query": "Nokia", "shown": shown}
        >>> tokens.check(Event.model_validate(event | {"impression_token": token}))
        >>> tokens.check(Event.model_validate(event | {"impression_token": token, "user_id": "u2"}))
        Traceback (most recent call last):
        ...
        prectr.serving.impression_tokens.InvalidImpression: is not the token of this request, user and query
    """

    def __init__(self, keys: Callable[[], Sequence[bytes]], hours: float) -> None:
        self._keys, self._seconds = keys, hours * 3600

    def sign(self, request_id: str, user_id: str, query: str, item_ids: Sequence[str]) -> str:
        """Token of a list of items that was returned for a request."""
        key = self._keys()[0]
        names = _names(request_id, user_id)
        expiry = int(time.time() + self._seconds).to_bytes(4, "big")
        signed = b"".join([_VERSION, expiry, *_item_hashes(key, names, item_ids)])
        return base64.urlsafe_b64encode(signed + _mac(key, signed, names, query)).decode()

    def check(self, event: Event) -> None:
        """Check the token of an event.

        Raises:
            InvalidImpression: the token has expired, or was not signed for this request, user, query and items.
        """
        try:
            token = base64.b64decode((event.impression_token or "").encode("ascii"), b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError):
            token = b""
        if len(token) < _HEAD + _MAC or token[:1] != _VERSION:
            raise InvalidImpression("forged", "is not a token of this service")
        signed, mac = token[:-_MAC], token[-_MAC:]
        names = _names(event.request_id, event.user_id)
        key = next(
            (key for key in self._keys() if hmac.compare_digest(_mac(key, signed, names, event.query), mac)), None
        )
        if key is None:
            raise InvalidImpression("forged", "is not the token of this request, user and query")
        if int.from_bytes(token[_EXPIRY], "big") < time.time():
            raise InvalidImpression("expired", "has expired")
        known = {signed[start : start + _HASH] for start in range(_HEAD, len(signed), _HASH)}
        item_ids = [item.item_id for item in event.shown]
        for item_id, digest in zip(item_ids, _item_hashes(key, names, item_ids), strict=True):
            if digest not in known:
                raise InvalidImpression("forged", f"does not hold the item {item_id!r}")


def _names(*texts: str) -> bytes:
    parts = [text.encode("utf-8", "surrogatepass") for text in texts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _mac(key: bytes, signed: bytes, names: bytes, query: str) -> bytes:
    return hmac.digest(key, signed + names + _names(normalise_query(query)), "sha256")[:_MAC]


def _item_hashes(key: bytes, names: bytes, item_ids: Sequence[str]) -> list[bytes]:
    empty = hashlib.blake2b(key=hmac.digest(key, b"items" + names, "sha256"), digest_size=_HASH)
    hashes = []
    for item_id in item_ids:
        state = empty.copy()
        state.update(item_id.encode("utf-8", "surrogatepass"))
        hashes.append(state.digest())
    return hashes

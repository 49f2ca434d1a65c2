"""What a reply that is no answer means: its status, whether another try may succeed, and how long to wait before it.

Gateways often send a provider's error with status 200, in the body or in the only choice. Such an error gets the status
that it states, or that its name or text means, and is then treated as if the reply had had this status.
"""

import math
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from pydantic import SecretStr

from prectr.core.errors import shorten

_MAX_WAIT = 60.0
"""Longest wait before a retry, in seconds, unless the server asks for another one."""
_MAX_RETRY_AFTER = 600.0
"""Longest wait that a server may ask for, in seconds; a longer one is cut to this."""
_MAX_DEPTH = 5
"""Levels of a reply's content in which a wait is looked for."""
_STATUS_FIELDS = ("code", "status", "status_code", "type")
"""Fields of an error that state its status or its name, the most exact first."""
_STATED_STATUS = re.compile(r"(?:^\s*(?=[45]\d\d\s*$)|\b(?:error|code|status|http)\W{0,3})([45]\d\d)\b", re.IGNORECASE)
_MEANINGS = (
    (429, "ratelimit|toomanyrequests|quota|exhausted|throttl"),
    (401, "apikey|unauthori[sz]ed|authenticat"),
    (403, "permission|forbidden|accessdenied|notallowed"),
    (404, "notfound|doesnotexist"),
    (402, "billing|payment|insufficient"),
    (503, "overload|unavailable|capacity|busy"),
    (504, "timeout|timedout|deadline"),
    (502, "gateway|upstream|connection"),
    (500, "servererror|internal"),
    (400, "contextlength|toolong|badrequest|invalid|validation|unsupported|notsupported|contentfilter|policy"),
)
"""Status of an error by words in its name or text, from which all but the letters was removed. The first match wins."""


@dataclass(frozen=True)
class Failure:
    """Why a question has no answer.

    Attributes:
        reason: what came instead, without the API key.
        status: the HTTP status that the failure has or amounts to; 200 for an answer that cannot be used.
        wait: seconds that the server asks to wait; 0 if it asks for none.
    """

    reason: str
    status: int
    wait: float = 0.0

    @property
    def temporary(self) -> bool:
        """Whether another try may succeed."""
        return self.status in (408, 429) or self.status >= 500


def read_failure(response: httpx.Response, key: SecretStr | None) -> Failure | None:
    """The error that a reply is, by its status or its content; None if it is none. The key is blanked out."""
    content = parse(response)
    error = _find_error(content)
    status = response.status_code
    if response.is_success:
        if error is None:
            return None
        status = _status_of(error)
        shown = f"HTTP {response.status_code} with error {status}"
    else:
        shown = f"HTTP {status}"
    text = _text_of(response.text if error is None else error)
    wait = max((*_stated_waits(dict(response.headers)), *_stated_waits(content)), default=0.0)
    return Failure(f"{shown}: {shorten(without_key(text, key)) or 'no reason given'}", status, wait)


def parse(response: httpx.Response) -> Any:
    """The JSON content of a reply; None if it holds none."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def wait_before_retry(number: int, first: float, server_wait: float) -> float:
    """Seconds to wait after try `number` (from 1) failed: `server_wait` if the server gave one, else `first` doubled
    after each try.

    A random factor keeps questions that failed together from being asked again together.
    """
    return server_wait or min(_MAX_WAIT, first * 2 ** (number - 1)) * random.uniform(0.5, 1.0)


def without_key(text: str, key: SecretStr | None) -> str:
    """Blank out the key in a text."""
    return text if key is None else text.replace(key.get_secret_value(), str(key))


def _find_error(content: Any) -> Any:
    """The error object or text in a reply's content or in its first choice; None if there is none."""
    if not isinstance(content, dict):
        return None
    choices = content.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    for holder in (content, first):
        if error := holder.get("error") or holder.get("errors"):
            return error[0] if isinstance(error, list) else holder if error is True else error
    if first.get("finish_reason") == "error":
        return "finish_reason is error"
    if first:
        return None
    if detail := content.get("detail"):
        return {"message": detail, "code": 422} if isinstance(detail, list) else detail
    is_error = content.keys() & {"message", "code"} and not content.keys() & {"data", "tokens"}
    return content if is_error else None


def _status_of(error: Any) -> int:
    """The status that an error states, or that its name or text means; 500 if it tells nothing."""
    fields = [error.get(name) for name in _STATUS_FIELDS] if isinstance(error, dict) else []
    for text in map(str, (*fields, _text_of(error))):
        if stated := _STATED_STATUS.search(text):
            return int(stated[1])
        letters = _letters(text)
        for status, words in _MEANINGS:
            if re.search(words, letters):
                return status
    return 500


def _text_of(error: Any) -> str:
    return str((error.get("message") or error) if isinstance(error, dict) else error)


def _letters(text: str) -> str:
    return re.sub("[^a-z]", "", text.lower())


def _stated_waits(content: Any, depth: int = _MAX_DEPTH) -> Iterator[float]:
    """Seconds of each `Retry-After`, `retry_after`, `retry-after-ms` or the like among headers or in a body."""
    if not depth or not isinstance(content, dict | list):
        return
    for name, value in content.items() if isinstance(content, dict) else enumerate(content):
        kind = _letters(str(name))
        if kind in ("retryafter", "retryafterseconds"):
            yield _seconds(value)
        elif kind == "retryafterms":
            yield _seconds(value, 1e-3)
        else:
            yield from _stated_waits(value, depth - 1)


def _seconds(value: Any, unit: float = 1.0) -> float:
    """A wait given as a number of `unit` seconds, or as a date; 0 if it is neither."""
    try:
        seconds = float(value) * unit
    except (ValueError, TypeError):
        try:
            seconds = parsedate_to_datetime(str(value)).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return 0.0 if math.isnan(seconds) else min(max(seconds, 0.0), _MAX_RETRY_AFTER)

"""The part of the OpenAI-compatible protocol that a teacher needs: request bodies, responses, failures and retries.

A request asks for one token with the log-probabilities of its alternatives, which servers compute before any sampling.
So no text is parsed and no answer is sampled.

| dialect | asks for | a label's mass |
|---|---|---|
| vllm | log-probabilities of exactly the label tokens, by id | exact |
| openai | the 20 likeliest tokens | summed over those that equal the label without blanks; 0 if there is none |

Nothing here opens a connection.
"""

import json
import math
import os
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import httpx
import numpy as np
from pydantic import SecretStr

from prectr.core.errors import UsageError, shorten

ALTERNATIVES = 20
"""Likeliest tokens to ask for: the most that the OpenAI protocol allows."""
_ROUNDING = 1e-3
"""Amount by which a log-probability may exceed 0 because of rounding."""
_MAX_WAIT = 60.0
"""Longest wait before a retry, in seconds, unless the server asks for another one."""
_MAX_RETRY_AFTER = 600.0
"""Longest wait that a server may ask for, in seconds; a longer one is cut to this."""


class BadAnswer(Exception):
    """A response with status 200 without label masses. The message shows what it holds instead."""


@dataclass(frozen=True)
class Server:
    """An identified server, with everything that a request to it needs.

    Attributes:
        url: base URL, usually ending in /v1.
        model: name of the model on the server.
        dialect: protocol that the server understands.
        labels: the answers, in grade order.
        label_tokens: token ids of the labels; empty in the openai dialect.
        chat: whether to send the prompt as a chat message; if false, the server completes it as plain text (vllm only).
        seed: seed of the requests. Answers are not sampled, but some servers use it elsewhere.
    """

    url: str
    model: str
    dialect: Literal["vllm", "openai"]
    labels: tuple[str, ...]
    label_tokens: tuple[int, ...]
    chat: bool
    seed: int

    @property
    def path(self) -> str:
        """Path of the questions below the base URL."""
        return "/chat/completions" if self.chat else "/completions"

    def body(self, prompt: str) -> dict[str, Any]:
        """Build the JSON body that asks one question."""
        body: dict[str, Any] = {"model": self.model, "max_tokens": 1, "temperature": 0, "seed": self.seed}
        if self.chat:
            body |= {"messages": [{"role": "user", "content": prompt}], "logprobs": True, "top_logprobs": ALTERNATIVES}
        else:
            body |= {"prompt": prompt, "logprobs": ALTERNATIVES, "add_special_tokens": False}
        if self.dialect == "vllm":
            tokens = list(self.label_tokens)
            # The answer must be a label; the log-probabilities are from before that constraint. A server too old for
            # `logprob_token_ids` ignores it and returns the likeliest tokens, also by id.
            body |= {"allowed_token_ids": tokens, "logprob_token_ids": tokens, "return_tokens_as_token_ids": True}
            if self.chat:
                body["chat_template_kwargs"] = {"enable_thinking": False}
        return body

    def label_mass(self, response: httpx.Response) -> np.ndarray:
        """Read the probability of each label as the next token from a response: [4] float64.

        Raises:
            BadAnswer: the response is no answer to `body`, or no label is among its tokens.
        """
        try:
            answer = response.json()
        except ValueError:
            raise BadAnswer(f"answer is not JSON: {shorten(response.text)!r}") from None
        try:
            choice = answer["choices"][0]["logprobs"]
            if self.chat:
                entries = choice["content"][0]["top_logprobs"]
                alternatives = [(str(entry["token"]), float(entry["logprob"])) for entry in entries]
            else:
                alternatives = [(token, float(value)) for token, value in choice["top_logprobs"][0].items()]
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            raise BadAnswer(f"answer has no log-probabilities: {shorten(response.text)}") from None
        if wrong := [value for _, value in alternatives if not value <= _ROUNDING]:
            raise BadAnswer(f"answer holds {wrong[0]}, which is no log-probability")
        grade_of_token = {f"token_id:{token}": grade for grade, token in enumerate(self.label_tokens)}
        grade_of_token = grade_of_token or {label: grade for grade, label in enumerate(self.labels)}
        mass, any_label = np.zeros(len(self.labels)), False
        for token, logarithm in alternatives:
            if (grade := grade_of_token.get(token.strip())) is not None:
                mass[grade] += math.exp(logarithm)
                any_label = True
        if not any_label:
            tokens = ", ".join(repr(token) for token, _ in alternatives[:5])
            raise BadAnswer(f"no label {'/'.join(self.labels)} among the likeliest answers, which are {tokens}")
        return mass


def is_temporary(status: int) -> bool:
    """Whether another try may succeed after a response with this HTTP status."""
    return status in (408, 429) or status >= 500


def retry_after(response: httpx.Response) -> float:
    """Seconds that the server asks to wait in its Retry-After header (a number or a date); 0 without the header."""
    header = response.headers.get("Retry-After", "")
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, TypeError):
            return 0.0
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER)


def wait_before_retry(number: int, first: float, server_wait: float) -> float:
    """Seconds to wait after try `number` (from 1) failed: `server_wait` if the server gave one, else `first` doubled
    after each try.

    A random factor keeps questions that failed together from being asked again together.
    """
    return server_wait or min(_MAX_WAIT, first * 2 ** (number - 1)) * random.uniform(0.5, 1.0)


def read_key(variable: str) -> SecretStr | None:
    """Read the API key from the environment; None if the variable is not set. The key prints as asterisks.

    Raises:
        UsageError: the value holds a character that no HTTP header may hold. Sending it would fail with a message that
            shows the key.
    """
    value = os.environ.get(variable, "").strip()
    if not all("!" <= character <= "~" for character in value):
        raise UsageError(
            f"environment variable {variable}: holds a blank, a line end or a letter that a key "
            "cannot have; set it to the key alone."
        )
    return SecretStr(value) if value else None


def headers(key: SecretStr | None) -> dict[str, str]:
    """Build the HTTP headers of a request."""
    return {} if key is None else {"Authorization": f"Bearer {key.get_secret_value()}"}


def failure_text(response: httpx.Response, key: SecretStr | None) -> str:
    """Describe a failure as `HTTP 404: the server's message`, with the key blanked out."""
    text = response.text
    try:
        content = json.loads(text)
        error = content.get("error", content)
        text = str(error.get("message", text)) if isinstance(error, dict) else str(error)
    except (ValueError, AttributeError):
        pass
    return f"HTTP {response.status_code}: {shorten(without_key(text, key)) or 'no reason given'}"


def without_key(text: str, key: SecretStr | None) -> str:
    """Blank out the key in a text."""
    return text if key is None else text.replace(key.get_secret_value(), str(key))

"""The OpenAI-compatible protocol as far as a teacher needs it: one question's body, one answer's label masses.

One token is asked for, with its alternatives' log-probabilities, which servers take before any sampling: no text is
parsed and no answer drawn.

| dialect | asks for | a label's mass |
|---|---|---|
| vllm | log-probabilities of exactly the label tokens, by id | exact |
| openai | the 20 likeliest tokens | summed over those that read as the label once blanks are stripped; 0 if none does |

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

from prectr.core.errors import UsageError

ALTERNATIVES = 20
"""Likeliest tokens that a server tells of at most."""
_SHOWN_CHARACTERS = 300
_ROUNDING = 1e-3
"""By so much a log-probability may exceed 0."""
_LONGEST_WAIT = 60.0
_LONGEST_TOLD_WAIT = 600.0
"""Seconds; a server that asks for more patience than this is asked again all the same."""


class BadAnswer(Exception):
    """An answer with status 200 that holds no label masses; says what came instead."""


@dataclass(frozen=True)
class Server:
    """A server that has been asked who it is.

    Attributes:
        url: base URL, mostly ending in /v1.
        model: the model's name there.
        dialect: what it understands.
        labels: the answers, in grade order.
        label_tokens: their token ids; empty in the openai dialect.
        chat: whether the model has a chat template; else the prompt is completed as it is (vllm only).
        seed: of the requests; the answer is not drawn, but a server may want one for its own order of work.
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
        """Of the questions, below the base URL."""
        return "/chat/completions" if self.chat else "/completions"

    def body(self, prompt: str) -> dict[str, Any]:
        """The JSON body that asks one question."""
        body: dict[str, Any] = {"model": self.model, "max_tokens": 1, "temperature": 0, "seed": self.seed}
        if self.chat:
            body |= {"messages": [{"role": "user", "content": prompt}], "logprobs": True, "top_logprobs": ALTERNATIVES}
        else:
            body |= {"prompt": prompt, "logprobs": ALTERNATIVES, "add_special_tokens": False}
        if self.dialect == "vllm":
            tokens = list(self.label_tokens)
            # The answer must be a label; its log-probabilities are from before that constraint. A server too old for
            # `logprob_token_ids` ignores it and tells of the likeliest tokens, by id as well.
            body |= {"allowed_token_ids": tokens, "logprob_token_ids": tokens, "return_tokens_as_token_ids": True}
            if self.chat:
                body["chat_template_kwargs"] = {"enable_thinking": False}
        return body

    def label_mass(self, response: httpx.Response) -> np.ndarray:
        """Probability of each label as the next token, [4] float64.

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
                found = [(str(entry["token"]), float(entry["logprob"])) for entry in entries]
            else:
                found = [(token, float(value)) for token, value in choice["top_logprobs"][0].items()]
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            raise BadAnswer(f"answer has no log-probabilities: {shorten(response.text)}") from None
        if wrong := [value for _, value in found if not value <= _ROUNDING]:
            raise BadAnswer(f"answer holds {wrong[0]}, which is no log-probability")
        place = {f"token_id:{token}": grade for grade, token in enumerate(self.label_tokens)}
        place = place or {label: grade for grade, label in enumerate(self.labels)}
        mass, seen = np.zeros(len(self.labels)), False
        for token, logarithm in found:
            if (grade := place.get(token.strip())) is not None:
                mass[grade] += math.exp(logarithm)
                seen = True
        if not seen:
            tokens = ", ".join(repr(token) for token, _ in found[:5])
            raise BadAnswer(f"no label {'/'.join(self.labels)} among the likeliest answers, which are {tokens}")
        return mass


def may_pass(status: int) -> bool:
    """Whether another try may mend an answer with this status."""
    return status in (408, 429) or status >= 500


def retry_after(response: httpx.Response) -> float:
    """Seconds that the server asks to wait, by its Retry-After (a number or a date); 0 if it does not say."""
    told = response.headers.get("Retry-After", "")
    try:
        seconds = float(told)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(told).timestamp() - time.time()
        except (ValueError, TypeError):
            return 0.0
    return min(max(seconds, 0.0), _LONGEST_TOLD_WAIT)


def wait_before_retry(number: int, first: float, told: float) -> float:
    """Seconds to wait after the failure of try `number` (from 1): what the server told, else doubled each time.

    Spread by chance, so that questions that failed together do not come back together.
    """
    return told or min(_LONGEST_WAIT, first * 2 ** (number - 1)) * random.uniform(0.5, 1.0)


def read_key(variable: str) -> SecretStr | None:
    """The server's key from the environment; None where the variable is not set. It prints as asterisks.

    Raises:
        UsageError: no key can be like that; sending it would fail with a message that shows it.
    """
    value = os.environ.get(variable, "").strip()
    if not all("!" <= character <= "~" for character in value):
        raise UsageError(f"environment variable {variable}: holds a blank, a line end or a letter that no key has.")
    return SecretStr(value) if value else None


def headers(key: SecretStr | None) -> dict[str, str]:
    """Headers of every request."""
    return {} if key is None else {"Authorization": f"Bearer {key.get_secret_value()}"}


def failure_text(response: httpx.Response, key: SecretStr | None) -> str:
    """`HTTP 404: the server's words`, without the key should the server repeat it."""
    text = response.text
    try:
        content = json.loads(text)
        error = content.get("error", content)
        text = str(error.get("message", text)) if isinstance(error, dict) else str(error)
    except (ValueError, AttributeError):
        pass
    return f"HTTP {response.status_code}: {shorten(without_key(text, key)) or 'no reason given'}"


def without_key(text: str, key: SecretStr | None) -> str:
    """The text with the key blanked out."""
    return text if key is None else text.replace(key.get_secret_value(), str(key))


def shorten(text: str) -> str:
    """One line of at most some hundred characters."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[:_SHOWN_CHARACTERS] + "..."

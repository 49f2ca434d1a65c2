"""The part of the OpenAI-compatible protocol that a teacher needs: request bodies and answers.

A request asks for one token with the log-probabilities of its alternatives, which servers compute before any sampling.
So no text is parsed and no answer is sampled.

| dialect | asks for | a label's mass |
|---|---|---|
| vllm | log-probabilities of exactly the label tokens, by id | exact |
| openai | the 20 likeliest tokens | summed over those that equal the label without blanks; 0 if there is none |

Nothing here opens a connection.
"""

import math
import os
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import numpy as np
from pydantic import SecretStr

from prectr.core.errors import UsageError, quoted, shorten
from prectr.labelling.engines.http_failures import Failure, parse, read_failure, without_key

ALTERNATIVES = 20
"""Likeliest tokens to ask for: the most that the OpenAI protocol allows."""
_CUT_SHORT = 502
"""Status that an answer with nothing in it amounts to: the server or a gateway failed on the way."""
_ROUNDING = 1e-3
"""Amount by which a log-probability may exceed 0 because of rounding."""


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

    def read(self, response: httpx.Response, key: SecretStr | None) -> np.ndarray | Failure:
        """Read the probability of each label as the next token from a response, [4] float64, or why it has none."""
        return read_failure(response, key) or self._label_mass(parse(response), without_key(response.text, key))

    def _label_mass(self, answer: Any, text: str) -> np.ndarray | Failure:
        if answer is None:
            return Failure(f"answer is not JSON: {shorten(text)!r}", _CUT_SHORT)
        choice: Any = {}
        try:
            choice = answer["choices"][0]
            told = choice["logprobs"]
            if self.chat:
                entries = told["content"][0]["top_logprobs"]
                alternatives = [(str(entry["token"]), float(entry["logprob"])) for entry in entries]
            else:
                alternatives = [(token, float(value)) for token, value in told["top_logprobs"][0].items()]
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            return Failure(f"answer has no log-probabilities: {shorten(text)}", 200 if _speaks(choice) else _CUT_SHORT)
        if wrong := [value for _, value in alternatives if not value <= _ROUNDING]:
            return Failure(f"answer holds {wrong[0]}, which is no log-probability", 200)
        grade_of_token = {f"token_id:{token}": grade for grade, token in enumerate(self.label_tokens)}
        grade_of_token = grade_of_token or {label: grade for grade, label in enumerate(self.labels)}
        mass, any_label = np.zeros(len(self.labels)), False
        for token, logarithm in alternatives:
            if (grade := grade_of_token.get(token.strip())) is not None:
                mass[grade] += math.exp(logarithm)
                any_label = True
        if not any_label:
            tokens = ", ".join(quoted(token) for token, _ in alternatives[:5])
            return Failure(f"no label {'/'.join(self.labels)} among the likeliest answers, which are {tokens}", 200)
        return mass


def _speaks(choice: Any) -> bool:
    """Whether a choice holds anything or says why it holds nothing; if not, it was cut short."""
    if not isinstance(choice, dict):
        return False
    message = choice.get("message")
    said = choice.get("text") or (isinstance(message, dict) and message.get("content"))
    return bool(said or choice.get("logprobs") or choice.get("finish_reason") not in (None, "", "stop"))


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

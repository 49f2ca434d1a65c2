"""Probe of a teacher's server before a run starts: model, dialect, label tokens, and one test question.

Every error says what to change. No message shows the API key, only whether it is set.
"""

import difflib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import polars as pl
from pydantic import SecretStr

from prectr.core.errors import UsageError, listed, shorten
from prectr.labelling.config import HttpConfig
from prectr.labelling.engines.contract import Question
from prectr.labelling.engines.http_failures import Failure, parse, read_failure, wait_before_retry, without_key
from prectr.labelling.engines.http_protocol import Server, headers, read_key


@dataclass(frozen=True)
class Probe:
    """Result of `probe`.

    Attributes:
        fingerprint: the model's identity for a label's key: its name, its root if the server states one, and the
            configured revision. The URL is left out, because the same model on another server is the same teacher.
        http: the configuration with model and dialect filled in.
        server: the server for `HttpAsker`.
    """

    fingerprint: str
    http: HttpConfig
    server: Server


def probe(question: Question) -> Probe:
    """Identify the server and its model, check the labels, and ask one test question.

    Args:
        question: the question to ask, whose teacher is the base URL. Its `label_tokens` are ignored.

    Raises:
        UsageError: the server cannot be reached, refuses the key, does not serve the model, splits a label into
            several tokens, or answers the question without a label.
    """
    config, url = question.config.http, question.teacher.rstrip("/")
    try:
        if httpx.URL(url).userinfo:
            raise UsageError(f"teacher: a URL must hold no password; put the key into ${config.key_variable} instead.")
    except httpx.InvalidURL as error:
        raise UsageError(f"teacher {shorten(url)}: not a URL ({shorten(error)}); give http://HOST:PORT/v1.") from None
    key = read_key(config.key_variable)
    with httpx.Client(headers=headers(key), timeout=config.timeout_seconds) as client:
        return _Prober(client, url, key, config).probe(question)


class _Prober:
    """One probe of one server, with its connection and settings."""

    def __init__(self, client: httpx.Client, url: str, key: SecretStr | None, config: HttpConfig) -> None:
        self._client, self._url, self._key, self._config = client, url, key, config

    def probe(self, question: Question) -> Probe:
        labels = question.template.labels
        card = self._choose(self._model_cards())
        model = str(card["id"])
        dialect = self._config.dialect
        label_tokens: tuple[int, ...] | None = None
        if dialect == "vllm" or (dialect == "auto" and card.get("owned_by") == "vllm"):
            label_tokens = self._label_tokens(model, labels)
            if label_tokens is None and dialect == "vllm":
                raise UsageError(
                    f"teacher {self._url}: has no /tokenize, which the vllm dialect needs to check the labels; "
                    "set label.http.dialect=openai."
                )
        server = Server(
            url=self._url,
            model=model,
            dialect="openai" if label_tokens is None else "vllm",
            labels=labels,
            label_tokens=label_tokens or (),
            chat=label_tokens is None or self._has_chat_template(model),
            seed=question.config.seed,
        )
        self._ask_test_question(server, question)
        identity = [model]
        if card.get("root") and card["root"] != model:
            identity.append(f"root={card['root']}")
        if self._config.revision:
            identity.append(f"revision={self._config.revision}")
        http = self._config.model_copy(update={"model": model, "dialect": server.dialect})
        return Probe(" ".join(identity), http, server)

    def _model_cards(self) -> list[dict[str, Any]]:
        """List the server's models: mappings with at least `id`."""
        response, failure = self._send("GET", f"{self._url}/models")
        if isinstance(failure, Failure):
            hint = "; the base URL of such a server mostly ends in /v1" if not self._url.endswith("/v1") else ""
            raise UsageError(
                f"teacher {self._url}: does not list its models under /models as an OpenAI-compatible server does "
                f"({failure.reason}){hint}."
            )
        try:
            cards = parse(response)["data"]
            return [card for card in cards if isinstance(card["id"], str)]
        except (ValueError, KeyError, TypeError):
            content = shorten(without_key(response.text, self._key))
            raise UsageError(
                f"teacher {self._url}: its list of models is not OpenAI-compatible: {content}; check the URL."
            ) from None

    def _choose(self, cards: list[dict[str, Any]]) -> dict[str, Any]:
        names = [card["id"] for card in cards]
        shown = listed(names) or "none"
        if self._config.model is None:
            if len(cards) == 1:
                return cards[0]
            raise UsageError(
                f"teacher {self._url}: serves {len(cards)} models ({shown}); name one with label.http.model=NAME."
            )
        for card in cards:
            if card["id"] == self._config.model:
                return card
        similar = difflib.get_close_matches(self._config.model, names, n=1)
        raise UsageError(
            f"teacher {self._url}: does not serve label.http.model={shorten(self._config.model, 80)}"
            + (f"; did you mean {shorten(similar[0], 80)}?" if similar else f"; it serves {shown}.")
        )

    def _label_tokens(self, model: str, labels: tuple[str, ...]) -> tuple[int, ...] | None:
        """Look up the token id of each label with the server's tokenizer; None if the server has no /tokenize."""
        label_tokens: list[int] = []
        for label in labels:
            content = self._tokenize({"model": model, "prompt": label, "add_special_tokens": False})
            try:
                tokens = [int(token) for token in content["tokens"]]
            except (ValueError, KeyError, TypeError):
                return None
            if len(tokens) != 1 or tokens[0] in label_tokens:
                raise UsageError(
                    f"teacher {self._url}: label '{label}' is not one token of the tokenizer of {model}, or shares its "
                    f"token with another label (token ids {tokens}); use another teacher, or a template with other "
                    "labels."
                )
            label_tokens.append(tokens[0])
        return tuple(label_tokens)

    def _has_chat_template(self, model: str) -> bool:
        message = [{"role": "user", "content": "a"}]
        return self._tokenize({"model": model, "messages": message}) is not None

    def _tokenize(self, body: dict[str, Any]) -> Any:
        """The content of the reply of /tokenize; None if the server refuses the request."""
        response, failure = self._send("POST", f"{self._url.removesuffix('/v1')}/tokenize", body)
        if not isinstance(failure, Failure):
            return parse(response)
        if failure.temporary:
            raise UsageError(
                f"teacher {self._url}: cannot tokenize ({failure.reason}); run again when the server is well, or set "
                "label.http.dialect=openai."
            )
        return None

    def _ask_test_question(self, server: Server, question: Question) -> None:
        fields = {name: ["red shoes"] for name in ("query", "title", *question.template.shown)}
        body = server.body(question.template.render(pl.DataFrame(fields))[0])
        _, failure = self._send("POST", self._url + server.path, body, server.read)
        if isinstance(failure, Failure):
            hint = (
                "Run again when the server is well."
                if failure.temporary
                else "Use a model that answers with the label alone and returns log-probabilities, or another prompt."
            )
            raise UsageError(
                f"teacher {self._url}: {server.model} does not answer a question of prompt "
                f"{question.template.version}: {failure.reason}. {hint}"
            )

    def _send(
        self,
        method: str,
        url: str,
        body: dict[str, Any] | None = None,
        read: Callable[[httpx.Response, SecretStr | None], object] = read_failure,
    ) -> tuple[httpx.Response, object]:
        """Send a request until its failure is none that may pass; returns the reply and what `read` made of it."""
        number = 0
        while True:
            number += 1
            last_try, server_wait = number > self._config.retries, 0.0
            try:
                response = self._client.request(method, url, json=body)
                found = read(response, self._key)
                if last_try or not (isinstance(found, Failure) and found.temporary):
                    break
                server_wait = found.wait
            except httpx.HTTPError as error:
                # A server that does not exist or does not answer is reported at once.
                if last_try or isinstance(error, httpx.ConnectError | httpx.TimeoutException):
                    reason = shorten(without_key(str(error), self._key)) or type(error).__name__
                    raise UsageError(
                        f"teacher {self._url}: cannot be reached ({reason}); check the URL and that the server runs."
                    ) from None
            time.sleep(wait_before_retry(number, self._config.first_wait_seconds, server_wait))
        if isinstance(found, Failure) and found.status in (401, 403):
            variable = self._config.key_variable
            raise UsageError(
                f"teacher {self._url}: refused the key (HTTP {found.status}). The key is read from the "
                f"environment variable {variable} (label.http.key_variable), which is "
                f"{'not set' if self._key is None else 'set'}."
            )
        return response, found

"""Engine that asks a teacher behind an OpenAI-compatible URL: many small requests at once, in Ray Data actors.

This module holds pace, time-outs and retries. `http_probe` identifies the server before anything starts, and
`http_protocol` defines requests and responses. A question that fails is returned with its reason and never makes
another one fail.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import polars as pl
import pyarrow as pa
from pydantic import SecretStr

from prectr.core.errors import shorten
from prectr.labelling.config import HttpConfig
from prectr.labelling.engines.contract import Question, answer_columns
from prectr.labelling.engines.http_probe import Probe, probe
from prectr.labelling.engines.http_protocol import (
    BadAnswer,
    Server,
    failure_text,
    headers,
    is_temporary,
    read_key,
    retry_after,
    wait_before_retry,
    without_key,
)

if TYPE_CHECKING:
    import ray.data

__all__ = ["HttpAsker", "Probe", "answer_with_http", "probe"]

_BLOCKS_AT_ONCE = 4
"""Blocks that a replica works on at the same time, so that a slow answer in one does not leave the server idle."""
_CPUS = 0.25
"""CPUs of a replica, at most. It mostly waits; whole CPUs would starve the rest of the pipeline on a small machine."""


def answer_with_http(questions: "ray.data.Dataset", question: Question) -> "ray.data.Dataset":
    """Answer in `replicas.at_least` to `at_most` actors, which share the limit of requests per second.

    Raises:
        UsageError: the server cannot be used; see `probe`.
    """
    import ray.data

    replicas = question.config.replicas
    return questions.map_batches(
        HttpTeacher,
        fn_constructor_kwargs={
            "question": question,
            "server": probe(question).server,
            "key": read_key(question.config.http.key_variable),
        },
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            min_size=replicas.at_least,
            max_size=replicas.at_most,
            max_concurrent_calls_per_actor=_BLOCKS_AT_ONCE,
        ),
        num_cpus=min(_CPUS, replicas.cpus),
        resources=replicas.resources or None,
    )


class HttpTeacher:
    """Actor that answers blocks of a Dataset with an `HttpAsker`."""

    def __init__(self, question: Question, server: Server, key: SecretStr | None) -> None:
        self._template = question.template
        self._asker = HttpAsker(server, question.config.http, key, share=1 / question.config.replicas.at_most)

    async def __call__(self, batch: pa.Table) -> dict[str, Any]:
        """Answer one block; the columns are those of `contract`."""
        mass, errors = await self._asker.label_mass(self._template.render(pl.DataFrame(batch)))
        return {"key": batch["key"].to_numpy(), **answer_columns(mass), "error": np.array(errors, dtype=object)}


class HttpAsker:
    """Asks one server, with limits on open requests and on requests per second.

    Args:
        server: the server that `probe` identified.
        config: pace, time-outs and retries.
        key: API key, sent with every request and shown in no message.
        share: this asker's share of `requests_per_second`.
    """

    def __init__(self, server: Server, config: HttpConfig, key: SecretStr | None, share: float = 1.0) -> None:
        self._server, self._config, self._key = server, config, key
        self._pace = _Pace(config.requests_per_second and config.requests_per_second * share)
        # One client per connection: a pool searches all its connections for every request, which would take most of
        # the time.
        ssl_context = httpx.create_ssl_context()
        self._clients = [
            httpx.AsyncClient(
                headers=headers(key),
                verify=ssl_context,
                timeout=None,  # `_try` limits the whole request, which a server that drips bytes cannot stretch
                limits=httpx.Limits(max_connections=1),
            )
            for _ in range(config.at_once)
        ]
        self._idle: asyncio.LifoQueue[httpx.AsyncClient] = asyncio.LifoQueue()
        for client in self._clients:
            self._idle.put_nowait(client)

    async def label_mass(self, prompts: list[str]) -> tuple[np.ndarray, list[str]]:
        """Ask one question per prompt.

        Returns:
            mass [n, 4] float64, the probability of each label as the next token, NaN in failed rows; and n error texts,
            "" for a good answer.
        """
        answers = await asyncio.gather(*map(self._ask, prompts))
        mass = np.full((len(prompts), len(self._server.labels)), np.nan)
        for row, answer in enumerate(answers):
            if not isinstance(answer, str):
                mass[row] = answer
        return mass, [answer if isinstance(answer, str) else "" for answer in answers]

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(client.aclose() for client in self._clients))

    async def _ask(self, prompt: str) -> np.ndarray | str:
        """Return the label masses, or the reason of a final failure."""
        body, tries, number = self._server.body(prompt), self._config.retries + 1, 0
        while True:
            number += 1
            client = await self._idle.get()
            try:
                await self._pace.wait()
                result = await self._try(client, body)
            finally:
                self._idle.put_nowait(client)
            if not isinstance(result, _TemporaryFailure):
                return result
            if number == tries:
                return result.reason + (f" ({tries} tries)" if tries > 1 else "")
            await asyncio.sleep(wait_before_retry(number, self._config.first_wait_seconds, result.retry_after))

    async def _try(self, client: httpx.AsyncClient, body: dict[str, Any]) -> "np.ndarray | str | _TemporaryFailure":
        try:
            async with asyncio.timeout(self._config.timeout_seconds):
                response = await client.post(self._server.url + self._server.path, json=body)
        except TimeoutError:
            return _TemporaryFailure(f"timed out after {self._config.timeout_seconds:g} s")
        except httpx.HTTPError as error:
            message = without_key(f"{type(error).__name__} {error}", self._key)
            return _TemporaryFailure(f"no answer: {shorten(message)}")
        if response.status_code == 200:
            try:
                return self._server.label_mass(response)
            except BadAnswer as error:
                return without_key(str(error), self._key)
        reason = failure_text(response, self._key)
        if not is_temporary(response.status_code):
            return reason
        seconds = retry_after(response)
        if seconds:  # the server asks all questions to wait, not only this one
            self._pace.pause(seconds)
        return _TemporaryFailure(reason, seconds)


@dataclass(frozen=True)
class _TemporaryFailure:
    """A failure after which another try may succeed; `retry_after` are the seconds that the server asks to wait."""

    reason: str
    retry_after: float = 0.0


class _Pace:
    """Spaces requests evenly under a limit, and holds all of them back while the server asks to wait."""

    def __init__(self, per_second: float | None) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._next_start = 0.0

    async def wait(self) -> None:
        now = time.monotonic()
        start = max(now, self._next_start)
        self._next_start = start + self._interval
        if start > now:
            await asyncio.sleep(start - now)

    def pause(self, seconds: float) -> None:
        self._next_start = max(self._next_start, time.monotonic() + seconds)

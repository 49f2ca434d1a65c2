"""Engine that asks a teacher behind an OpenAI-compatible URL: many small requests at once, in Ray Data actors.

This module holds pace, time-outs and retries. `http_probe` identifies the server before anything starts,
`http_protocol` defines requests and answers, and `http_failures` says what a reply without an answer means. A question
that fails is returned with its reason and never makes another one fail.
"""

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import polars as pl
import pyarrow as pa
from pydantic import SecretStr

from prectr.core.errors import shorten
from prectr.labelling.config import HttpConfig
from prectr.labelling.engines.contract import UNASKED, Question, answer_columns
from prectr.labelling.engines.http_failures import Failure, wait_before_retry, without_key
from prectr.labelling.engines.http_probe import Probe, probe
from prectr.labelling.engines.http_protocol import Server, headers, read_key

if TYPE_CHECKING:
    import ray.data
    from ray.actor import ActorHandle

__all__ = ["HttpAsker", "Probe", "answer_with_http", "probe"]

_BLOCKS_AT_ONCE = 4
"""Blocks that a replica works on at the same time, so that a slow answer in one does not leave the server idle."""
_CPUS = 0.25
"""CPUs of a replica, at most. It mostly waits; whole CPUs would starve the rest of the pipeline on a small machine."""


def answer_with_http(
    questions: "ray.data.Dataset", question: Question, stop: "ActorHandle | None" = None
) -> "ray.data.Dataset":
    """Answer in `replicas.at_least` to `at_most` actors, which share the limit of requests per second.

    Args:
        stop: a `StopSignal`. Once it is given, answers to the questions on their way are awaited and all other
            questions come back as `UNASKED`.

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
            "stop": stop,
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


def stop_signal() -> "ActorHandle":
    """Start a `StopSignal` for `answer_with_http`."""
    import ray

    return ray.remote(num_cpus=0)(StopSignal).remote()


class StopSignal:
    """Actor through which a run tells all its replicas to ask nothing more."""

    def __init__(self) -> None:
        self._given = asyncio.Event()

    async def give(self) -> None:
        """Let all waiting replicas go on."""
        self._given.set()

    async def wait(self) -> None:
        """Return when the signal is given."""
        await self._given.wait()


class HttpTeacher:
    """Actor that answers blocks of a Dataset with an `HttpAsker`."""

    def __init__(
        self, question: Question, server: Server, key: SecretStr | None, stop: "ActorHandle | None" = None
    ) -> None:
        self._template, self._stop = question.template, stop
        self._watcher: asyncio.Task[None] | None = None
        self._asker = HttpAsker(server, question.config.http, key, share=1 / question.config.replicas.at_most)

    async def __call__(self, batch: pa.Table) -> dict[str, Any]:
        """Answer one block; the columns are those of `contract`."""
        if self._stop is not None and self._watcher is None:
            self._watcher = asyncio.create_task(self._watch(self._stop))
        mass, errors = await self._asker.label_mass(self._template.render(pl.DataFrame(batch)))
        return {"key": batch["key"].to_numpy(), **answer_columns(mass), "error": np.array(errors, dtype=object)}

    async def _watch(self, stop: "ActorHandle") -> None:
        await stop.wait.remote()
        self._asker.stop()


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
        self._stopped = asyncio.Event()
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

    def stop(self) -> None:
        """Ask nothing more. Answers on their way are awaited; all other questions fail with `UNASKED`."""
        self._stopped.set()

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
                await self._sleep(self._pace.next_wait())
                if self._stopped.is_set():
                    return UNASKED
                result = await self._try(client, body)
            finally:
                self._idle.put_nowait(client)
            if not isinstance(result, Failure):
                return result
            if not result.temporary:
                return result.reason
            if number == tries:
                return result.reason + (f" ({tries} tries)" if tries > 1 else "")
            await self._sleep(wait_before_retry(number, self._config.first_wait_seconds, result.wait))

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but not longer than until `stop`."""
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), seconds)

    async def _try(self, client: httpx.AsyncClient, body: dict[str, Any]) -> np.ndarray | Failure:
        try:
            async with asyncio.timeout(self._config.timeout_seconds):
                response = await client.post(self._server.url + self._server.path, json=body)
        except TimeoutError:
            return Failure(f"timed out after {self._config.timeout_seconds:g} s", status=408)
        except httpx.HTTPError as error:
            message = without_key(f"{type(error).__name__} {error}", self._key)
            return Failure(f"no answer: {shorten(message)}", status=503)
        result = self._server.read(response, self._key)
        if isinstance(result, Failure) and result.temporary:
            self._pace.pause(result.wait)  # the server asks all questions to wait, not only this one
        return result


class _Pace:
    """Spaces requests evenly under a limit, and holds all of them back while the server asks to wait."""

    def __init__(self, per_second: float | None) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._next_start = 0.0

    def next_wait(self) -> float:
        """Seconds that the next request, which this counts, has to wait."""
        now = time.monotonic()
        start = max(now, self._next_start)
        self._next_start = start + self._interval
        return start - now

    def pause(self, seconds: float) -> None:
        self._next_start = max(self._next_start, time.monotonic() + seconds)

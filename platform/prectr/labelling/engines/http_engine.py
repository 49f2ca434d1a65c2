"""The teacher behind any OpenAI-compatible URL: many small requests at once, in Ray Data actors that mostly wait.

`http_probe` finds out who the server is before anything starts, `http_protocol` knows what is sent and what comes back;
here is only how: pace, time-outs, tries. A question that fails comes back with its reason and never fails another.
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

from prectr.labelling.config import HttpConfig
from prectr.labelling.engines.contract import Question, answer_columns
from prectr.labelling.engines.http_probe import Probe, probe
from prectr.labelling.engines.http_protocol import (
    BadAnswer,
    Server,
    failure_text,
    headers,
    may_pass,
    read_key,
    retry_after,
    shorten,
    wait_before_retry,
    without_key,
)

if TYPE_CHECKING:
    import ray.data

__all__ = ["HttpAsker", "Probe", "answer_with_http", "probe"]

_BLOCKS_AT_ONCE = 4
"""Blocks of a replica whose questions are under way, so that a slow answer in one does not leave the server idle."""
_CPUS = 0.25


def answer_with_http(questions: "ray.data.Dataset", question: Question) -> "ray.data.Dataset":
    """Answer in `replicas.at_least` to `at_most` actors, which share the limit of requests per second.

    Raises:
        UsageError: the server cannot be asked; see `probe`.
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
        # It waits for the network; whole CPUs would starve the rest of the pipeline on a small machine.
        num_cpus=min(_CPUS, replicas.cpus),
        resources=replicas.resources or None,
    )


class HttpTeacher:
    """One replica: `HttpAsker` on blocks of a Dataset."""

    def __init__(self, question: Question, server: Server, key: SecretStr | None) -> None:
        self._template = question.template
        self._asker = HttpAsker(server, question.config.http, key, share=1 / question.config.replicas.at_most)

    async def __call__(self, batch: pa.Table) -> dict[str, Any]:
        """Answer one block; columns as in `engines`."""
        mass, errors = await self._asker.label_mass(self._template.render(pl.DataFrame(batch)))
        return {"key": batch["key"].to_numpy(), **answer_columns(mass), "error": np.array(errors, dtype=object)}


class HttpAsker:
    """Asks one server, with a limit on requests in flight and on requests a second.

    Args:
        server: as `probe` found it.
        config: pace, time-outs and tries.
        key: sent with every request, and in no message.
        share: of `requests_per_second` that is this asker's.
    """

    def __init__(self, server: Server, config: HttpConfig, key: SecretStr | None, share: float = 1.0) -> None:
        self._server, self._config, self._key = server, config, key
        self._pace = _Pace(config.requests_per_second and config.requests_per_second * share)
        # A connection each: a pool of many looks at all of them for every request, which would cost most of the time.
        secured = httpx.create_ssl_context()
        self._clients = [
            httpx.AsyncClient(
                headers=headers(key),
                verify=secured,
                timeout=None,  # one limit on the whole request instead, which a server that drips bytes cannot stretch
                limits=httpx.Limits(max_connections=1),
            )
            for _ in range(config.at_once)
        ]
        self._idle: asyncio.LifoQueue[httpx.AsyncClient] = asyncio.LifoQueue()
        for client in self._clients:
            self._idle.put_nowait(client)

    async def label_mass(self, prompts: list[str]) -> tuple[np.ndarray, list[str]]:
        """Ask for each prompt.

        Returns:
            mass [n, 4] float64, the probability of each label as the next token, NaN where it failed; and n reasons,
            empty for a good answer.
        """
        answers = await asyncio.gather(*map(self._ask, prompts))
        mass = np.full((len(prompts), len(self._server.labels)), np.nan)
        for row, found in enumerate(answers):
            if not isinstance(found, str):
                mass[row] = found
        return mass, [found if isinstance(found, str) else "" for found in answers]

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(client.aclose() for client in self._clients))

    async def _ask(self, prompt: str) -> np.ndarray | str:
        """The label masses, or why there are none."""
        body, tries, number = self._server.body(prompt), self._config.retries + 1, 0
        while True:
            number += 1
            client = await self._idle.get()
            try:
                await self._pace.turn()
                found = await self._try(client, body)
            finally:
                self._idle.put_nowait(client)
            if not isinstance(found, _Again):
                return found
            if number == tries:
                return found.reason + (f" ({tries} tries)" if tries > 1 else "")
            await asyncio.sleep(wait_before_retry(number, self._config.first_wait_seconds, found.told_wait))

    async def _try(self, client: httpx.AsyncClient, body: dict[str, Any]) -> "np.ndarray | str | _Again":
        try:
            async with asyncio.timeout(self._config.timeout_seconds):
                response = await client.post(self._server.url + self._server.path, json=body)
        except TimeoutError:
            return _Again(f"timed out after {self._config.timeout_seconds:g} s")
        except httpx.HTTPError as error:
            return _Again(f"no answer: {shorten(without_key(f'{type(error).__name__} {error}', self._key))}")
        if response.status_code == 200:
            try:
                return self._server.label_mass(response)
            except BadAnswer as error:
                return without_key(str(error), self._key)
        reason = failure_text(response, self._key)
        if not may_pass(response.status_code):
            return reason
        told = retry_after(response)
        if told:  # for every question, not only for this one
            self._pace.hold(told)
        return _Again(reason, told)


@dataclass(frozen=True)
class _Again:
    """A failure that another try may mend."""

    reason: str
    told_wait: float = 0.0


class _Pace:
    """Gives turns to requests: evenly spaced under a limit, and none while the server asked for patience."""

    def __init__(self, per_second: float | None) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._free_at = 0.0

    async def turn(self) -> None:
        now = time.monotonic()
        start = max(now, self._free_at)
        self._free_at = start + self._interval
        if start > now:
            await asyncio.sleep(start - now)

    def hold(self, seconds: float) -> None:
        self._free_at = max(self._free_at, time.monotonic() + seconds)

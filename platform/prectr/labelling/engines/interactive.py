"""Engines for a few pairs at a time, with the prompts, token ids and label masses of the batch engines.

There is one class per engine, all with `answer(pairs)`. A pair that fails is returned with its reason; only a pair
whose query is too long for a prompt raises. This module uses no Ray Dataset and serves no HTTP.
"""

import asyncio
import uuid
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import polars as pl

from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.labelling.engines.contract import EngineName, Question, answer_columns
from prectr.labelling.prompt import tokenise_prompts


class TooLong(ValueError):
    """The query leaves no room for a title, or is itself too long."""


@dataclass(frozen=True)
class Answers:
    """Answers to n pairs.

    Attributes:
        levels: [n, 4] label probabilities, normalised over the labels, before calibration.
        outside_mass: [n] probability of any other token.
        errors: n error texts, "" for a good answer.
        prompts: n prompts as the engine got them.
    """

    levels: np.ndarray
    outside_mass: np.ndarray
    errors: list[str]
    prompts: list[str]

    @classmethod
    def of(cls, columns: dict[str, np.ndarray], errors: list[str], prompts: list[str]) -> "Answers":
        """Build from the columns of `answer_columns`."""
        return cls(np.stack([columns[name] for name in LEVEL_COLUMNS], 1), columns["outside_mass"], errors, prompts)


class InteractiveEngine(Protocol):
    """Interface of an engine that `TeacherScorer` uses."""

    async def answer(self, pairs: pl.DataFrame) -> Answers:
        """Answer pairs with the columns that `PromptTemplate.render` needs.

        Raises:
            TooLong: a prompt does not fit even without its title (engines that tokenise here).
        """
        ...

    async def check_health(self) -> None:
        """Raise if the engine has died and can answer no more questions."""
        ...

    def close(self) -> None:
        """Release the engine's resources."""
        ...


def open_engine(question: Question, engine: EngineName) -> InteractiveEngine:
    """Load the teacher into this process, or connect to it."""
    kinds: dict[EngineName, type[Any]] = {"vllm": _Vllm, "transformers": _Transformers, "http": _Http}
    opened: InteractiveEngine = kinds[engine](question)
    return opened


class _Tokenised:
    """Tokenises pairs. Shown prompts are decoded from the token ids, so they are exactly what the teacher reads."""

    def __init__(self, question: Question) -> None:
        from prectr.labelling.own_teacher.model import load_tokenizer

        self._template, self._max_length = question.template, question.config.max_length
        self._tokenizer = load_tokenizer(question.teacher)

    def __call__(self, pairs: pl.DataFrame) -> tuple[list[list[int]], list[str]]:
        tokens = tokenise_prompts(self._tokenizer, self._template, pairs, self._max_length)
        most_tokens = max(map(len, tokens))
        if most_tokens > self._max_length:
            raise TooLong(f"the prompt has {most_tokens} tokens even without a title, {self._max_length} are allowed")
        return tokens, [self._tokenizer.decode(ids, clean_up_tokenization_spaces=False) for ids in tokens]


class _Transformers:
    """transformers in this process: one batch at a time."""

    def __init__(self, question: Question) -> None:
        from prectr.labelling.engines.transformers_engine import TransformersTeacher

        self._tokenise, self._teacher = _Tokenised(question), TransformersTeacher(question)
        self._lock = asyncio.Lock()

    async def answer(self, pairs: pl.DataFrame) -> Answers:
        tokens, prompts = self._tokenise(pairs)
        batch = {"key": np.arange(len(pairs)), "prompt_tokens": tokens}
        async with self._lock:  # one call uses all threads of the machine
            columns = await asyncio.to_thread(self._teacher, batch)
        return Answers.of(columns, [str(error) for error in columns["error"]], prompts)

    async def check_health(self) -> None:
        """Nothing to check: the model lives as long as the process."""

    def close(self) -> None:
        """Nothing to do: the model is freed with the process."""


class _Vllm:
    """vLLM's asynchronous engine: pairs that arrive together are answered together."""

    def __init__(self, question: Question) -> None:
        import torch
        from vllm import AsyncEngineArgs, SamplingParams
        from vllm.v1.engine.async_llm import AsyncLLM

        from prectr.labelling.engines.vllm_engine import engine_arguments, sampling_arguments

        arguments = engine_arguments(question.config, on_gpu=torch.cuda.is_available())
        if question.config.replicas.tensor_parallel > 1:
            # A served replica's process owns all its GPUs; Ray need not place workers for it.
            arguments.setdefault("distributed_executor_backend", "mp")
        self._tokenise, self._labels = _Tokenised(question), list(question.label_tokens)
        self._sampling = SamplingParams(**sampling_arguments(self._labels))
        self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model=question.teacher, **arguments))

    async def answer(self, pairs: pl.DataFrame) -> Answers:
        tokens, prompts = self._tokenise(pairs)
        results = await asyncio.gather(*map(self._mass, tokens), return_exceptions=True)
        mass = np.full((len(tokens), len(self._labels)), np.nan)
        errors = [""] * len(tokens)
        for row, result in enumerate(results):
            if isinstance(result, BaseException):
                errors[row] = str(result) or type(result).__name__
            else:
                mass[row] = result
        return Answers.of(answer_columns(mass), errors, prompts)

    async def _mass(self, tokens: list[int]) -> list[float]:
        answers = self._engine.generate({"prompt_token_ids": tokens}, self._sampling, uuid.uuid4().hex)
        *_, last = [answer async for answer in answers]
        logprobs = last.outputs[0].logprobs[0]
        return [float(np.exp(logprobs[token].logprob)) for token in self._labels]

    async def check_health(self) -> None:
        await self._engine.check_health()

    def close(self) -> None:
        self._engine.shutdown()


class _Http:
    """Requests to the server of the teacher's URL."""

    def __init__(self, question: Question) -> None:
        from prectr.labelling.engines.http_engine import HttpAsker, probe
        from prectr.labelling.engines.http_protocol import read_key

        http = question.config.http
        self._template = question.template
        self._asker = HttpAsker(
            probe(question).server, http, read_key(http.key_variable), share=1 / question.config.replicas.at_most
        )

    async def answer(self, pairs: pl.DataFrame) -> Answers:
        prompts = self._template.render(pairs)
        mass, errors = await self._asker.label_mass(prompts)
        return Answers.of(answer_columns(mass), errors, prompts)

    async def check_health(self) -> None:
        """Nothing to check: an unreachable server gives an error in each answer, and a new replica would not help."""

    def close(self) -> None:
        """Nothing to do: connections are closed with the process."""

"""Requests that arrive together are scored together: one thread works, what arrives meanwhile is its next batch.

So the batch grows with the load by itself, a lone request waits for nobody, and the models are used by one thread only.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from prectr.serving.config import BatchConfig

Item = TypeVar("Item")
Result = TypeVar("Result")
Made = TypeVar("Made")


class Overloaded(Exception):
    """Too many requests wait already; this one was not taken."""


class TooLate(Exception):
    """The request waited longer than its deadline and was not worked on."""


@dataclass
class _Waiting(Generic[Item, Result]):
    item: Item
    weight: int
    deadline: float
    arrived: float
    answer: "asyncio.Future[tuple[Result, float]]" = field(repr=False)


class Batcher(Generic[Item, Result]):
    """Runs `work` over batches of items in a thread of its own; to be used from one event loop.

    Args:
        work: a batch in, a result for each item, in order, out. What it raises, all items of the batch get.
        config: how large a batch may be, and how long it may wait.
        max_queued: items that may wait.
    """

    def __init__(
        self, work: Callable[[Sequence[Item]], Sequence[Result]], config: BatchConfig, max_queued: int
    ) -> None:
        self._work, self._config, self._max_queued = work, config, max_queued
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scoring")
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._arrival: asyncio.Event | None = None
        self._working: list[_Waiting[Item, Result]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether anything is being worked on or waits."""
        return bool(self._working or self._waiting)

    async def submit(self, item: Item, weight: int, patience: float) -> tuple[Result, float]:
        """The item's result, and the seconds that it waited.

        Args:
            item: what `work` gets.
            weight: its candidates; a batch holds `config.candidates` at most.
            patience: seconds that it may wait.

        Raises:
            Overloaded: the queue is full.
            TooLate: it waited longer than its patience.
        """
        # The queue counts what cannot begin at once: with nobody waiting and the thread idle there is always room.
        if self.busy and len(self._waiting) >= self._max_queued:
            raise Overloaded
        loop = asyncio.get_running_loop()
        if self._worker is None or self._worker.done():
            self._arrival = asyncio.Event()
            self._worker = loop.create_task(self._serve())
        now = time.perf_counter()
        waiting: _Waiting[Item, Result] = _Waiting(item, weight, now + patience, now, loop.create_future())
        self._waiting.append(waiting)
        assert self._arrival is not None
        self._arrival.set()
        return await waiting.answer

    async def run(self, work: Callable[..., Made], *arguments: Any) -> Made:
        """Do something else in the thread, when what it is doing is done."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def drained(self) -> None:
        """Until everything that waits now has been answered."""
        pending = [waiting.answer for waiting in (*self._working, *self._waiting)]
        await asyncio.gather(*pending, return_exceptions=True)

    async def close(self) -> None:
        """Stop working; what waits is abandoned."""
        if self._worker is not None:
            self._worker.cancel()
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _serve(self) -> None:
        assert self._arrival is not None
        while True:
            await self._arrival.wait()
            if self._config.wait_ms and not self._full():
                await asyncio.sleep(self._config.wait_ms / 1000)
            self._working = self._take()
            if not self._waiting:
                self._arrival.clear()
            if self._working:
                await self._answer(self._working)
                self._working = []

    def _full(self) -> bool:
        waiting = list(self._waiting)
        return len(waiting) >= self._config.requests or sum(one.weight for one in waiting) >= self._config.candidates

    def _take(self) -> list[_Waiting[Item, Result]]:
        """The next batch: at least one item, more as long as there is room. Late and abandoned ones are let go."""
        batch: list[_Waiting[Item, Result]] = []
        weight, now = 0, time.perf_counter()
        while self._waiting and len(batch) < self._config.requests:
            first = self._waiting[0]
            if batch and weight + first.weight > self._config.candidates:
                break
            self._waiting.popleft()
            if first.answer.done():  # the client went away
                continue
            if now > first.deadline:
                first.answer.set_exception(TooLate())
                continue
            batch.append(first)
            weight += first.weight
        return batch

    async def _answer(self, batch: list[_Waiting[Item, Result]]) -> None:
        started = time.perf_counter()
        try:
            results = await self.run(self._work, [one.item for one in batch])
        except Exception as error:
            for one in batch:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        for one, result in zip(batch, results, strict=True):
            if not one.answer.done():
                one.answer.set_result((result, started - one.arrived))

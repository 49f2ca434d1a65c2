"""Dynamic batching: one thread scores a batch, and requests that arrive meanwhile form its next batch.

The batch size so follows the load, a single request does not wait, and one thread only uses the models.
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
Output = TypeVar("Output")


class Overloaded(Exception):
    """The queue is full; the request was refused."""


class TooLate(Exception):
    """The request waited longer than its deadline and was not scored."""


@dataclass
class _Entry(Generic[Item, Result]):
    item: Item
    weight: int
    deadline: float
    arrived: float
    answer: "asyncio.Future[tuple[Result, float]]" = field(repr=False)


class Batcher(Generic[Item, Result]):
    """Runs `work` on batches of items in a separate thread. Use it from one event loop.

    Args:
        work: takes a batch and returns one result per item, in order. If it raises, all items of the batch get the
            error.
        config: largest batch, and time to wait for more items.
        max_queued: most items that may wait.
    """

    def __init__(
        self, work: Callable[[Sequence[Item]], Sequence[Result]], config: BatchConfig, max_queued: int
    ) -> None:
        self._work, self._config, self._max_queued = work, config, max_queued
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scoring")
        self._waiting: deque[_Entry[Item, Result]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._arrival: asyncio.Event | None = None
        self._working: list[_Entry[Item, Result]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether an item is in work or waits."""
        return bool(self._working or self._waiting)

    async def submit(self, item: Item, weight: int, patience: float) -> tuple[Result, float]:
        """Queue an item; returns its result and the seconds that it waited.

        Args:
            item: input of `work`.
            weight: number of its candidates; a batch holds `config.candidates` at most.
            patience: seconds that it may wait.

        Raises:
            Overloaded: the queue is full.
            TooLate: the item waited longer than `patience`.
        """
        # An idle thread with an empty queue always accepts an item, even with max_queued = 0.
        if self.busy and len(self._waiting) >= self._max_queued:
            raise Overloaded
        loop = asyncio.get_running_loop()
        if self._worker is None or self._worker.done():
            self._arrival = asyncio.Event()
            self._worker = loop.create_task(self._serve())
        now = time.perf_counter()
        entry: _Entry[Item, Result] = _Entry(item, weight, now + patience, now, loop.create_future())
        self._waiting.append(entry)
        assert self._arrival is not None
        self._arrival.set()
        return await entry.answer

    async def run(self, work: Callable[..., Output], *arguments: Any) -> Output:
        """Run another function in the thread, after the current batch."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def drained(self) -> None:
        """Wait until all items that are queued now have their answers."""
        pending = [entry.answer for entry in (*self._working, *self._waiting)]
        await asyncio.gather(*pending, return_exceptions=True)

    async def close(self) -> None:
        """Stop the thread; waiting items get no answer."""
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
        weight = sum(entry.weight for entry in self._waiting)
        return len(self._waiting) >= self._config.requests or weight >= self._config.candidates

    def _take(self) -> list[_Entry[Item, Result]]:
        """Take the next batch from the queue, at least one item if any is left; drops late and cancelled items."""
        batch: list[_Entry[Item, Result]] = []
        weight, now = 0, time.perf_counter()
        while self._waiting and len(batch) < self._config.requests:
            first = self._waiting[0]
            if batch and weight + first.weight > self._config.candidates:
                break
            self._waiting.popleft()
            if first.answer.done():  # the client disconnected
                continue
            if now > first.deadline:
                first.answer.set_exception(TooLate())
                continue
            batch.append(first)
            weight += first.weight
        return batch

    async def _answer(self, batch: list[_Entry[Item, Result]]) -> None:
        started = time.perf_counter()
        try:
            results = await self.run(self._work, [entry.item for entry in batch])
        except Exception as error:
            for entry in batch:
                if not entry.answer.done():
                    entry.answer.set_exception(error)
            return
        for entry, result in zip(batch, results, strict=True):
            if not entry.answer.done():
                entry.answer.set_result((result, started - entry.arrived))

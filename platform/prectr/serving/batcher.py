"""Dynamic batching: one thread scores a batch, and requests that arrive meanwhile form its next batch.

The batch size so follows the load, a single request does not wait, and the models are used by one function at a time.
Spare work, such as events, is done in short steps while no request waits; when requests always wait, after each batch
for a small part of the batch's time.
"""

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from prectr.serving.config import BatchConfig

Item = TypeVar("Item")
Result = TypeVar("Result")
Output = TypeVar("Output")

SPARE_SECONDS = 0.002
"""Seconds of spare work after which requests have their turn again; a single step may take longer."""
SPARE_SHARE = 0.1
"""Seconds of spare work for each second of scoring while requests always wait."""
SWITCH_SECONDS = 0.0005
"""Seconds for which the event loop and the thread keep Python's lock from each other in `Batcher.short_turns`. At
Python's default of 0.005, a request that arrives beside other work of both waits several times 5 ms."""


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


@dataclass
class _Spare:
    steps: Generator[None, None, Any]
    answer: "asyncio.Future[Any]" = field(repr=False)


class Batcher(Generic[Item, Result]):
    """Runs `work` on batches of items in a separate thread. Use it from one event loop.

    Args:
        work: takes a batch and returns one result per item, in order. If it raises, all items of the batch get the
            error.
        config: largest batch, and time to wait for more items.
        max_queued: most items that may wait.
        spare_in_loop: whether steps of spare work are done in the event loop while the thread is idle: for steps that
            never wait for a network. They then do not compete with the loop for Python's lock.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result]],
        config: BatchConfig,
        max_queued: int,
        spare_in_loop: bool = False,
    ) -> None:
        self._work, self._config, self._max_queued, self._spare_in_loop = work, config, max_queued, spare_in_loop
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scoring")
        self._alone = threading.Lock()
        """Held by whatever runs in the thread, and by spare work in the loop."""
        self._waiting: deque[_Entry[Item, Result]] = deque()
        self._spare: deque[_Spare] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._arrival: asyncio.Event | None = None
        self._working: list[_Entry[Item, Result]] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._short_turns = 0
        self._usual_switch_seconds = sys.getswitchinterval()

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
        now = time.perf_counter()
        answer: asyncio.Future[tuple[Result, float]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Entry(item, weight, now + patience, now, answer))
        self._idle.clear()
        self._wake()
        return await answer

    async def until_idle(self, seconds: float) -> None:
        """Wait until no item is in work or waits, for some seconds at most."""
        if not self._idle.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), seconds)

    @contextmanager
    def short_turns(self) -> Iterator[None]:
        """Let the event loop and the thread take turns soon during the block, in the whole process.

        For the whole of other work than scoring, in the loop and in the thread; while items are scored only, switching
        would cost more time than it saves.
        """
        self._short_turns += 1
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            yield
        finally:
            self._short_turns -= 1
            if not self._short_turns:
                sys.setswitchinterval(self._usual_switch_seconds)

    async def run_spare(self, steps: Generator[None, None, Output]) -> Output:
        """Run the steps of a generator while no item is in work or waits; returns the generator's result.

        Steps should take a few milliseconds at most, because an item that arrives waits for the current one. Generators
        run one after another.
        """
        answer: asyncio.Future[Output] = asyncio.get_running_loop().create_future()
        self._spare.append(_Spare(steps, answer))
        self._wake()
        return await answer

    async def run(self, work: Callable[..., Output], *arguments: Any) -> Output:
        """Run another function in the thread, after the current batch."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run_alone, work, *arguments)

    def _run_alone(self, work: Callable[..., Output], *arguments: Any) -> Output:
        with self._alone:
            return work(*arguments)

    async def drained(self) -> None:
        """Wait until all items and all spare work that are queued now have their answers."""
        pending: list[asyncio.Future[Any]] = [entry.answer for entry in (*self._working, *self._waiting)]
        pending += [spare.answer for spare in self._spare]
        await asyncio.gather(*pending, return_exceptions=True)

    async def close(self) -> None:
        """Stop the thread; waiting items get no answer."""
        if self._worker is not None:
            self._worker.cancel()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _wake(self) -> None:
        if self._worker is None or self._worker.done():
            self._arrival = asyncio.Event()
            self._worker = asyncio.get_running_loop().create_task(self._serve())
        assert self._arrival is not None
        self._arrival.set()

    async def _serve(self) -> None:
        assert self._arrival is not None
        while True:
            await self._arrival.wait()
            if self._waiting and self._config.wait_ms and not self._full():
                await asyncio.sleep(self._config.wait_ms / 1000)
            started = time.perf_counter()
            self._working = self._take()
            if self._working:
                await self._answer(self._working)
                self._working = []
            if not self._waiting:
                self._idle.set()
            if self._spare:
                await self._run_spare(SPARE_SHARE * (time.perf_counter() - started))
            if not self._waiting and not self._spare:
                self._arrival.clear()

    async def _run_spare(self, least_seconds: float) -> None:
        """Run spare work for some milliseconds, for longer than `least_seconds` only if no item waits."""
        if self._spare_in_loop and self._alone.acquire(blocking=False):
            try:
                ended = self._step_spare(least_seconds)
            finally:
                self._alone.release()
        else:
            ended = await self.run(self._step_spare, least_seconds)
        for spare, result, error in ended:
            if spare.answer.done():  # the client disconnected
                continue
            if error is None:
                spare.answer.set_result(result)
            else:
                spare.answer.set_exception(error)
        await asyncio.sleep(0)  # requests that have come meanwhile go first

    def _step_spare(self, least_seconds: float) -> list[tuple[_Spare, Any, Exception | None]]:
        """Run steps of spare work; returns what has ended."""
        ended: list[tuple[_Spare, Any, Exception | None]] = []
        started = time.perf_counter()
        while self._spare:
            spare = self._spare[0]
            try:
                next(spare.steps)
            except StopIteration as end:
                ended.append((self._spare.popleft(), end.value, None))
            except Exception as error:
                ended.append((self._spare.popleft(), None, error))
            seconds = time.perf_counter() - started
            if seconds > least_seconds and (self._waiting or seconds > SPARE_SECONDS):
                break
        return ended

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

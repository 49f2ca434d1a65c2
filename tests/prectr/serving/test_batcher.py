"""Requests that wait together are worked on together; queue, deadline and thread keep their word."""

import asyncio
import threading
import time
from collections.abc import Generator, Sequence
from typing import Any

import pytest

from prectr.serving.batcher import Batcher, Overloaded, TooLate
from prectr.serving.config import BatchConfig


class Work:
    """Doubles numbers, one batch at a time, when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.threads.add(threading.current_thread().name)
        self.batches.append(list(items))
        assert self.gate.wait(10)
        return [2 * item for item in items]


def run(scenario: Any) -> None:
    asyncio.run(scenario)


async def begun(batcher: Batcher[int, int], work: Work, item: int, weight: int = 1) -> "asyncio.Task[Any]":
    """A first item that is being worked on, so that others wait."""
    work.gate.clear()
    task = asyncio.create_task(batcher.submit(item, weight, 60))
    while not work.batches:
        await asyncio.sleep(0.001)
    return task


def test_what_arrives_meanwhile_is_one_batch() -> None:
    async def scenario() -> None:
        work = Work()
        batcher: Batcher[int, int] = Batcher(work, BatchConfig(requests=8), max_queued=10)
        first = await begun(batcher, work, 1)
        rest = [asyncio.create_task(batcher.submit(item, 1, 60)) for item in (2, 3, 4)]
        await asyncio.sleep(0.01)
        work.gate.set()
        assert [(await task)[0] for task in (first, *rest)] == [2, 4, 6, 8]
        assert work.batches == [[1], [2, 3, 4]] and len(work.threads) == 1
        assert (await rest[0])[1] > 0.005, "it waited for the first"
        await batcher.close()

    run(scenario())


@pytest.mark.parametrize(
    ("config", "batches"),
    [
        (BatchConfig(requests=2), [[1], [2, 3], [4, 5]]),
        (BatchConfig(requests=9, candidates=100), [[1], [2, 3], [4], [5]]),
    ],
    ids=["requests", "candidates; one that is too large goes alone"],
)
def test_a_batch_is_bounded(config: BatchConfig, batches: list[list[int]]) -> None:
    async def scenario() -> None:
        work = Work()
        batcher: Batcher[int, int] = Batcher(work, config, max_queued=10)
        first = await begun(batcher, work, 1)
        weights = {2: 40, 3: 60, 4: 300, 5: 1}
        rest = [asyncio.create_task(batcher.submit(item, weight, 60)) for item, weight in weights.items()]
        await asyncio.sleep(0.01)
        work.gate.set()
        await asyncio.gather(first, *rest)
        assert work.batches == batches
        await batcher.close()

    run(scenario())


def test_a_full_queue_sheds_and_recovers() -> None:
    async def scenario() -> None:
        work = Work()
        batcher: Batcher[int, int] = Batcher(work, BatchConfig(), max_queued=2)
        tasks = [await begun(batcher, work, 1)]
        tasks += [asyncio.create_task(batcher.submit(item, 1, 60)) for item in (2, 3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await batcher.submit(4, 1, 60)
        work.gate.set()
        assert [result for result, _ in await asyncio.gather(*tasks)] == [2, 4, 6]
        assert (await batcher.submit(5, 1, 60))[0] == 10
        await batcher.close()

    run(scenario())


def test_without_a_queue_an_idle_batcher_still_answers() -> None:
    async def scenario() -> None:
        batcher: Batcher[int, int] = Batcher(Work(), BatchConfig(), max_queued=0)
        assert (await batcher.submit(1, 1, 60))[0] == 2
        await batcher.close()

    run(scenario())


def test_a_late_request_is_not_worked_on() -> None:
    async def scenario() -> None:
        work = Work()
        batcher: Batcher[int, int] = Batcher(work, BatchConfig(), max_queued=5)
        first = await begun(batcher, work, 1)
        late = asyncio.create_task(batcher.submit(2, 1, 0.01))
        patient = asyncio.create_task(batcher.submit(3, 1, 60))
        await asyncio.sleep(0.05)
        work.gate.set()
        with pytest.raises(TooLate):
            await late
        assert [(await first)[0], (await patient)[0]] == [2, 6]
        assert work.batches == [[1], [3]]
        await batcher.close()

    run(scenario())


def test_a_client_that_went_away_is_not_worked_for() -> None:
    async def scenario() -> None:
        work = Work()
        batcher: Batcher[int, int] = Batcher(work, BatchConfig(), max_queued=5)
        first = await begun(batcher, work, 1)
        gone = asyncio.create_task(batcher.submit(2, 1, 60))
        await asyncio.sleep(0)
        gone.cancel()
        work.gate.set()
        await first
        assert (await batcher.submit(3, 1, 60))[0] == 6
        assert work.batches == [[1], [3]]
        await batcher.close()

    run(scenario())


def test_an_error_reaches_who_caused_it_and_work_goes_on() -> None:
    async def scenario() -> None:
        def work(items: Sequence[int]) -> list[int]:
            if 0 in items:
                raise ZeroDivisionError("nothing")
            return list(items)

        batcher: Batcher[int, int] = Batcher(work, BatchConfig(), max_queued=5)
        with pytest.raises(ZeroDivisionError, match="nothing"):
            await batcher.submit(0, 1, 60)
        assert (await batcher.submit(7, 1, 60))[0] == 7
        await batcher.close()

    run(scenario())


def test_waiting_for_company_is_bounded() -> None:
    async def scenario() -> None:
        work = Work()
        batcher: Batcher[int, int] = Batcher(work, BatchConfig(wait_ms=30), max_queued=5)
        started = time.perf_counter()
        tasks = [asyncio.create_task(batcher.submit(1, 1, 60))]
        await asyncio.sleep(0.01)
        tasks.append(asyncio.create_task(batcher.submit(2, 1, 60)))
        await asyncio.gather(*tasks)
        assert work.batches == [[1, 2]] and time.perf_counter() - started < 5
        await batcher.close()

    run(scenario())


def test_drained_waits_for_all_that_is_there() -> None:
    async def scenario() -> None:
        work = Work()
        batcher: Batcher[int, int] = Batcher(work, BatchConfig(requests=1), max_queued=5)
        tasks = [await begun(batcher, work, 1), asyncio.create_task(batcher.submit(2, 1, 60))]
        await asyncio.sleep(0)
        drained = asyncio.create_task(batcher.drained())
        await asyncio.sleep(0.02)
        assert not drained.done()
        work.gate.set()
        await drained
        assert all(task.done() for task in tasks) or await asyncio.gather(*tasks)
        assert work.batches == [[1], [2]]
        await batcher.close()

    run(scenario())


@pytest.mark.parametrize("in_loop", [False, True])
def test_spare_work_is_done_in_steps_between_batches(in_loop: bool) -> None:
    """An item that arrives during spare work waits for one step, and spare work goes on while items always wait."""

    async def scenario() -> None:
        work = Work()
        batcher: Batcher[int, int] = Batcher(work, BatchConfig(requests=1), 50, spare_in_loop=in_loop)
        steps: list[int] = []
        threads: set[threading.Thread] = set()

        def spare() -> Generator[None, None, str]:
            for number in range(30):
                time.sleep(0.002)
                steps.append(number)
                threads.add(threading.current_thread())
                yield
            return "done"

        done = asyncio.create_task(batcher.run_spare(spare()))
        await asyncio.sleep(0.005)
        await batcher.submit(1, 1, 60)
        assert 0 < len(steps) < 10, "the item did not wait for the end"
        await asyncio.gather(*(batcher.submit(item, 1, 60) for item in range(2, 12)))
        assert len(steps) >= 10, "each batch was followed by a step"
        assert await done == "done" and len(steps) == 30
        assert len(threads) == 1 and (threading.current_thread() in threads) == in_loop

        def broken() -> Generator[None, None, None]:
            yield
            raise ZeroDivisionError("nothing")

        with pytest.raises(ZeroDivisionError):
            await batcher.run_spare(broken())
        assert (await batcher.submit(3, 1, 60))[0] == 6
        await batcher.close()

    run(scenario())


def test_spare_work_in_the_loop_never_runs_beside_the_thread() -> None:
    async def scenario() -> None:
        batcher: Batcher[int, int] = Batcher(Work(), BatchConfig(), max_queued=5, spare_in_loop=True)
        gate, order = threading.Event(), []

        def other() -> None:
            gate.wait(60)
            order.append("other")

        def spare() -> Generator[None, None, None]:
            order.append("spare")
            yield

        busy = asyncio.create_task(batcher.run(other))
        await asyncio.sleep(0.02)
        done = asyncio.create_task(batcher.run_spare(spare()))
        await asyncio.sleep(0.02)
        assert order == [], "the loop is free, and the step waits"
        gate.set()
        await asyncio.gather(busy, done)
        assert order == ["other", "spare"]
        await batcher.close()

    run(scenario())


def test_waiting_for_an_idle_thread_is_bounded() -> None:
    async def scenario() -> None:
        work = Work()
        batcher: Batcher[int, int] = Batcher(work, BatchConfig(), max_queued=5)
        await batcher.until_idle(60)
        first = await begun(batcher, work, 1)
        started = time.perf_counter()
        await batcher.until_idle(0.05)
        assert 0.04 < time.perf_counter() - started < 5
        waiting = asyncio.create_task(batcher.until_idle(60))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        work.gate.set()
        await first
        await asyncio.wait_for(waiting, 5)
        await batcher.close()

    run(scenario())

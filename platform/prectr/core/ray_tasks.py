"""Running many independent pieces of work as Ray Data tasks, so many at a time as memory allows."""

import pickle
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from prectr.core.ray_errors import user_errors

Task = TypeVar("Task")


def run_tasks(
    work: Callable[[Task], Any],
    tasks: Sequence[Task],
    at_once: int,
    on_done: Callable[[int], None] | None = None,
) -> list[Any]:
    """Run `work` on every task over the cluster; the results, in the order of the tasks.

    A task that is lost with its machine is run again elsewhere, so `work` must be repeatable.

    Args:
        work: an importable function, or a `functools.partial` of one.
        tasks: what it is called with, one at a time; small, because they are sent.
        at_once: how many run at a time.
        on_done: called with the number of each task that is done.
    """
    import ray.data

    if not tasks:
        return []
    at_once = min(at_once, len(tasks))
    rows = [{"number": number, "task": pickle.dumps(task)} for number, task in enumerate(tasks)]

    def run(batch: pa.Table) -> pa.Table:
        results = [pickle.dumps(work(pickle.loads(task))) for task in batch["task"].to_pylist()]
        return pa.table({"number": batch["number"], "result": pa.array(results, pa.binary())})

    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        run,
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.TaskPoolStrategy(size=at_once),
        num_cpus=1,
    )
    results: dict[int, Any] = {}
    with user_errors():
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            for number, result in zip(batch["number"].to_pylist(), batch["result"].to_pylist(), strict=True):
                results[number] = pickle.loads(result)
                if on_done is not None:
                    on_done(number)
    return [results[number] for number in range(len(tasks))]

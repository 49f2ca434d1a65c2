"""Run independent pieces of work as Ray Data tasks, with a limit on how many run at the same time."""

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
    """Run `work` on every task over the cluster and return the results in the order of the tasks.

    Ray runs a task again on another machine if its machine is lost, so `work` must be repeatable.

    Args:
        work: an importable function, or a `functools.partial` of one.
        tasks: the arguments of `work`, one a call. They are pickled and sent, so they should be small.
        at_once: most tasks that run at the same time.
        on_done: called with the number of each finished task.

    Raises:
        PrectrError: `work` raised one in a task.
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

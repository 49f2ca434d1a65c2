"""Start an embedded Ray, or join the cluster that a submitted job runs on; quiet unless `-v`.

Nothing else in the library calls `ray.init`. Inside a submitted job `RAY_ADDRESS` is set by Ray, and the same code
joins that cluster instead of starting one.
"""

import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from prectr.core import mirror, progress
from prectr.core.config import Execution, FrozenConfig
from prectr.core.errors import UsageError


class RayConfig(FrozenConfig):
    """How a laptop's embedded Ray is started, which is ignored where a cluster is joined; and what tasks may use."""

    num_cpus: int = 8
    """Logical CPUs. More than a small machine has, because stages that only wait hold one each (RAY.md 00)."""
    object_store_gib: float = 1.0
    memory_gib: float | None = Field(default=None, gt=0)
    """Memory that the tasks of mining and sampling may use on each machine together (`--memory`); null: a third of the
    machine's, at most 4 GiB. They are cut to fit; less memory makes more and smaller tasks."""
    tasks: int | None = Field(default=None, ge=1)
    """Tasks of mining and sampling that run at once, over all machines; null: one for each CPU."""


class WorkerConfig(FrozenConfig):
    """What each worker of a training takes of its machine; base of the sections of jobs that train."""

    cpus: Execution[int] = Field(2, ge=1)
    """Torch threads of a worker."""
    gpus: Execution[float] = Field(0, ge=0)
    """GPUs of a worker; 0 trains on the CPU even where there are some."""
    memory_gib: Execution[float | None] = Field(None, gt=0)
    """Memory that Ray sets aside for a worker; null: not counted."""

    @property
    def of_worker(self) -> dict[str, float]:
        """By Ray's names, as `resources`."""
        return resources(self.cpus, self.gpus, self.memory_gib)


def resources(cpus: float, gpus: float = 0, memory_gib: float | None = None) -> dict[str, float]:
    """What a worker takes, by Ray's names (memory in bytes); what it does not take is not named."""
    wanted = {"CPU": float(cpus), "GPU": float(gpus), "memory": float(memory_bytes(memory_gib) or 0)}
    return {name: amount for name, amount in wanted.items() if amount}


@dataclass(frozen=True)
class Budget:
    """What tasks may use.

    Attributes:
        of_task: bytes of one task.
        at_once: tasks that run at a time, over all machines.
    """

    of_task: int
    at_once: int

    def rows(self, row_bytes: int) -> int:
        """Rows of so many bytes that a task can hold."""
        return max(1, self.of_task // row_bytes)


_MOST_MEMORY = 4 * 2**30
_WORKER_BYTES = 350 * 2**20
"""What a worker process holds before it has read a row: the libraries."""
_LEAST_TASK = 64 * 2**20

# Read by Ray when it starts. `setdefault`: what the user exported wins.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_QUIET_ENVIRONMENT = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
}


def prepare_environment() -> None:
    """Set the variables that Ray and the libraries read at import or start; call before importing ray."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if progress.verbosity() < 1:
        for name, value in _QUIET_ENVIRONMENT.items():
            os.environ.setdefault(name, value)


def parse_gib(text: str) -> float:
    """A size of memory, as `6GiB`, `512 MiB` or `4G`, in GiB.

    Raises:
        UsageError: the text is no size.
    """
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT])i?B?\s*", text, re.IGNORECASE)
    size = float(found.group(1)) * 1024.0 ** ("KMGT".index(found.group(2).upper()) - 2) if found else 0.0
    if size <= 0:
        raise UsageError(f"--memory {text!r}: not a size; give it as 6GiB or 512MiB.")
    return size


@contextmanager
def ray_session(config: RayConfig | None = None) -> Iterator[None]:
    """A running Ray for the block. Nested blocks share the outer one's."""
    prepare_environment()
    import ray

    if ray.is_initialized():
        yield
        return
    config = config or RayConfig()
    quiet = progress.verbosity() < 1
    level = logging.ERROR if quiet else logging.INFO
    with _native_stderr_muted() if quiet else nullcontext():
        if address := os.environ.get("RAY_ADDRESS"):
            _join(address, log_to_driver=not quiet, logging_level=level)
        else:
            # Nobody announces that this machine goes; the watcher is one process more for each training.
            os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
            ray.init(
                address="local",
                num_cpus=config.num_cpus,
                object_store_memory=int(config.object_store_gib * 2**30),
                include_dashboard=False,
                log_to_driver=not quiet,
                logging_level=level,
            )
    _route_ray_output(quiet)
    if quiet:
        silence_ray()
    try:
        mirror.check_shared()
        yield
    finally:
        ray.shutdown()


def _join(address: str, **options: Any) -> None:
    """Join the cluster of a submitted job.

    Raises:
        UsageError: it runs another Ray or Python.
    """
    import ray

    try:
        ray.init(**options)
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise
        said = " ".join(str(error).split())
        raise UsageError(f"{address}: {said}; run the nodes and this job with the same Ray and Python.") from None


def busy_session(config: RayConfig | None = None) -> AbstractContextManager[None]:
    """`ray_session` for stages whose tasks all compute: a worker a core and one more, because many start slowly."""
    config = config or RayConfig()
    return ray_session(config.model_copy(update={"num_cpus": min(config.num_cpus, (os.cpu_count() or 1) + 1)}))


def task_budget(config: RayConfig | None = None) -> Budget:
    """How much memory a task of a vectorised stage may use, and how many may run; asks the running Ray.

    The embedded Ray has more logical CPUs than the machine has cores, for stages that wait; these do not.
    """
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    # A head without CPUs runs none of them; where nothing else is alive, a lost node is being replaced.
    machines = [node for node in alive if node["Resources"].get("CPU", 0)] or alive
    cpus = [int(node["Resources"].get("CPU", 0)) for node in machines]
    if not os.environ.get("RAY_ADDRESS"):
        cpus = [min(count, os.cpu_count() or 1) for count in cpus]
    config = config or RayConfig()
    given = config.memory_gib
    smallest = min(node["Resources"].get("memory", _MOST_MEMORY) for node in machines)
    of_machine = min(smallest / 3, _MOST_MEMORY) if given is None else given * 2**30
    at_once = min(sum(cpus), config.tasks or sum(cpus))
    return Budget(of_task=bytes_of_task(of_machine, max(*cpus, 1)), at_once=max(at_once, 1))


def bytes_of_task(of_machine: float, cores: int) -> int:
    """What one of `cores` tasks may hold of the memory that a machine gives to all of them."""
    return int(max(of_machine / cores - _WORKER_BYTES, _LEAST_TASK))


def memory_bytes(gib: float | None) -> int | None:
    """A configured memory as Ray wants it."""
    return None if gib is None else int(gib * 2**30)


def require_resources(section: str, each: Mapping[str, float], *, workers: int | None = None) -> None:
    """Refuse what an embedded Ray can never give: a stage would wait for it without end. A cluster may yet grow.

    Args:
        section: of the configuration that asks.
        each: what each worker takes, from `resources`.
        workers: how many there are at least, where that is a setting.

    Raises:
        UsageError: names the setting, and what there is.
    """
    if os.environ.get("RAY_ADDRESS"):
        return
    import ray

    there = ray.cluster_resources()
    for name, setting, unit, help_ in (
        ("GPU", "gpus", "GPUs", ""),
        ("CPU", "cpus", "CPUs", ", or raise ray.num_cpus"),
        ("memory", "memory_gib", "GiB", ""),
    ):
        asked, found = (of.get(name, 0) / (2**30 if name == "memory" else 1) for of in (each, there))
        if (workers or 1) * asked > found:
            many, lower = (f"{section}.workers {workers} with ", "one of the two") if workers else ("", "it")
            raise UsageError(
                f"{many}{section}.{setting} {asked:g}{' each' if workers else ''}: Ray has {found:.3g} {unit} here; "
                f"lower {lower}{help_}."
            )


def silence_ray() -> None:
    """Keep Ray's own chatter out of the terminal; Ray Data sets its loggers up on first use, so it comes first."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray", "ray.train", "ray.tune", "ray.serve", "vllm"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "The maximum number of concurrent tasks for")  # of a few blocks, nothing to mend
    # It prints the whole stack of an error that it then raises.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


@contextmanager
def _native_stderr_muted() -> Iterator[None]:
    """Drop what native code writes to standard error in the block: Ray announces its own log level there at each start.

    Exceptions are not affected; `-v` shows everything.
    """
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _route_ray_output(quiet: bool) -> None:
    """Raylet messages go to standard error, or nowhere when quiet; Ray would mix them with results on standard output.

    Ray has no setting for it, so its printing function is wrapped.
    """
    from ray._private import worker

    original = worker.print_to_stdstream

    def print_to_standard_error(data: dict[str, Any], ignore_prefix: bool) -> None:
        if not quiet:
            original({**data, "is_err": True}, ignore_prefix)

    if original.__module__ == worker.__name__:
        worker.print_to_stdstream = print_to_standard_error

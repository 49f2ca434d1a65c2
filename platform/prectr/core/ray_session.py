"""Ray sessions: start an embedded Ray or join a submitted job's cluster, and compute what workers and tasks may use.

Nothing else in the library calls `ray.init`. Inside a submitted job Ray sets `RAY_ADDRESS`, and the same code joins
that cluster. Ray's own messages are hidden unless `-v` is given.
"""

import logging
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from prectr.core import mirror, progress
from prectr.core.config import Execution, FrozenConfig
from prectr.core.errors import UsageError, quoted, shorten


class RayConfig(FrozenConfig):
    """Settings of the embedded Ray on one machine, and limits for tasks. A joined cluster ignores the first two."""

    num_cpus: int = 8
    """Logical CPUs of the embedded Ray. They may exceed the cores, because tasks that only wait hold a CPU each."""
    object_store_gib: float = 1.0
    """Memory of the embedded Ray's object store, in GiB. Blocks of data that do not fit spill to disk."""
    memory_gib: float | None = Field(default=None, gt=0)
    """Memory in GiB that all tasks of mining and sampling on one machine may use together (`--memory`). Less memory
    means more and smaller tasks. Null: a third of the machine's memory, at most 4 GiB."""
    tasks: int | None = Field(default=None, ge=1)
    """Most tasks of mining and sampling that run at the same time, over all machines. Null: one for each CPU."""


class WorkerConfig(FrozenConfig):
    """Resources of each training worker. Base class of the sections of all stages that train."""

    cpus: Execution[int] = Field(2, ge=1)
    """CPUs of each worker, and its torch threads."""
    gpus: Execution[float] = Field(0, ge=0)
    """GPUs of each worker. 0 trains on the CPU, even on a machine with GPUs."""
    memory_gib: Execution[float | None] = Field(None, gt=0)
    """Memory in GiB that Ray reserves for each worker. Null: Ray does not count its memory."""

    @property
    def of_worker(self) -> dict[str, float]:
        """Resources of one worker, by Ray's names."""
        return resources(self.cpus, self.gpus, self.memory_gib)


def resources(cpus: float, gpus: float = 0, memory_gib: float | None = None) -> dict[str, float]:
    """Resources of a worker by Ray's names, memory in bytes. Resources of amount 0 are left out."""
    amounts = {"CPU": float(cpus), "GPU": float(gpus), "memory": float(memory_bytes(memory_gib) or 0)}
    return {name: amount for name, amount in amounts.items() if amount}


@dataclass(frozen=True)
class Budget:
    """Limits for the tasks of a stage.

    Attributes:
        of_task: bytes that one task may use.
        at_once: most tasks that run at the same time, over all machines.
    """

    of_task: int
    at_once: int

    def rows(self, row_bytes: int) -> int:
        """How many rows of `row_bytes` bytes fit into a task; at least 1."""
        return max(1, self.of_task // row_bytes)


_MOST_MEMORY = 4 * 2**30
"""Bytes: default limit for all tasks of one machine."""
_WORKER_BYTES = 350 * 2**20
"""Bytes of a worker process before it reads any data: the imported libraries."""
_LEAST_TASK = 64 * 2**20
"""Bytes: least memory of one task."""

METRICS_VARIABLE = "RAY_enable_metrics_collection"
"""Environment variable: whether Ray collects metrics."""
NICENESS_VARIABLE = "RAY_worker_niceness"
"""Environment variable: by how much Ray lowers the priority of its workers (`nice`)."""

# Ray reads these when it starts. They are set by `setdefault`, so that the user's own values count.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "1000",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
# So are these, but they are gone once Ray has started.
_SERVING = {METRICS_VARIABLE: "1", NICENESS_VARIABLE: "0"}
_STAGES = {METRICS_VARIABLE: "0"}
_QUIET_ENVIRONMENT = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
}


def prepare_environment() -> None:
    """Set the environment variables that Ray and the libraries read at import. Call it before importing ray."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if progress.verbosity() < 1:
        for name, value in _QUIET_ENVIRONMENT.items():
            os.environ.setdefault(name, value)


def parse_gib(text: str) -> float:
    """Parse a size of memory such as `6GiB`, `512 MiB` or `4G`. Returns GiB.

    Raises:
        UsageError: the text is not a size.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT])i?B?\s*", text, re.IGNORECASE)
    size = float(match.group(1)) * 1024.0 ** ("KMGT".index(match.group(2).upper()) - 2) if match else 0.0
    if size <= 0:
        raise UsageError(f"--memory {quoted(text)}: not a size; give it as 6GiB or 512MiB.")
    return size


@contextmanager
def ray_session(
    config: RayConfig | None = None,
    end: Callable[[Callable[[], Any]], Any] | None = None,
    *,
    serves: bool = False,
    metrics_port: int | None = None,
) -> Iterator[None]:
    """Run Ray during the block. A nested block uses the session of the outer one.

    Args:
        config: settings of the embedded Ray; None: the defaults.
        end: called with the function that stops Ray, for servers, which limit its time; None: the function is called.
            With it, Ray's processes do not get signals to this process's group, so that requests can be answered.
        serves: whether the embedded Ray serves requests. If so, it exports metrics, which costs a stage a little time
            (see `metrics_url`), and its workers have the priority of this process. Ray's own, lower one makes requests
            wait for whatever else the machine does.
        metrics_port: TCP port of the metrics; None: a free one.
    """
    prepare_environment()
    quiet = progress.verbosity() < 1
    with _environment(_SERVING if serves else _STAGES):
        import ray

        nested = ray.is_initialized()
        if not nested:
            with _native_stderr_muted() if quiet else nullcontext(), _own_group() if end else nullcontext():
                _start(config or RayConfig(), quiet, metrics_port)
    if nested:
        yield
        return
    _route_ray_output(quiet)
    if quiet:
        silence_ray()
    try:
        mirror.check_shared()
        yield
    finally:
        (end or _call)(ray.shutdown)


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables that Ray reads while it starts. The user's own values count.

    Afterwards they are gone, because another server or stage that this process starts decides for itself.
    """
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _start(config: RayConfig, quiet: bool, metrics_port: int | None) -> None:
    """Start the embedded Ray, or join the cluster of a submitted job."""
    import ray

    level = logging.ERROR if quiet else logging.INFO
    if address := os.environ.get("RAY_ADDRESS"):
        _join(address, log_to_driver=not quiet, logging_level=level)
        return
    # Nothing announces the preemption of this machine, and the watcher costs each training a process.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    ray.init(
        address="local",
        num_cpus=config.num_cpus,
        object_store_memory=int(config.object_store_gib * 2**30),
        include_dashboard=False,
        log_to_driver=not quiet,
        logging_level=level,
        **({} if metrics_port is None else {"_metrics_export_port": metrics_port}),
    )


@contextmanager
def _own_group() -> Iterator[None]:
    """Start Ray's processes in process groups of their own during the block. Ray has no setting for this."""
    from ray._private import services

    popen = services.ConsolePopen
    if sys.platform == "linux":  # elsewhere Ray needs one group to end its processes
        services.ConsolePopen = partial(popen, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = popen


def session_folders() -> set[Path]:
    """Ray's session directories with logs and sockets that this process made, each named after its process id."""
    from ray._common.utils import get_default_ray_temp_dir

    return set(Path(get_default_ray_temp_dir()).glob(f"session_*_{os.getpid()}"))


def remove_session_folder(folder: Path) -> None:
    """Delete a session directory of Ray, the link to it, and the directory around it if it is empty."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        latest = folder.with_name("session_latest")
        if latest.is_symlink() and not latest.exists():
            latest.unlink()
        folder.parent.rmdir()


def _call(work: Callable[[], Any]) -> None:
    work()


def metrics_url() -> str | None:
    """Where this node of the running Ray exports metrics for Prometheus; None if it exports none."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    (node,) = (node for node in ray.nodes() if node["NodeID"] == own)
    port = node["MetricsExportPort"]
    return f"http://{node['NodeManagerAddress']}:{port}/metrics" if port > 0 else None


def _join(address: str, **options: Any) -> None:
    """Join the cluster of a submitted job.

    Raises:
        UsageError: the cluster runs another version of Ray or Python.
    """
    import ray

    try:
        ray.init(**options)
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise
        reason = shorten(error)
        raise UsageError(f"{address}: {reason}; run the nodes and this job with the same Ray and Python.") from None


def busy_session(config: RayConfig | None = None) -> AbstractContextManager[None]:
    """`ray_session` for stages whose tasks all compute: one worker for each core and one more, at most `num_cpus`.

    Fewer workers start faster.
    """
    config = config or RayConfig()
    return ray_session(config.model_copy(update={"num_cpus": min(config.num_cpus, (os.cpu_count() or 1) + 1)}))


def task_budget(config: RayConfig | None = None) -> Budget:
    """Memory of a task and number of tasks of a vectorised stage, from the machines of the running Ray.

    The embedded Ray may have more logical CPUs than the machine has cores; tasks that compute use cores only.
    """
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    # A head without CPUs runs no tasks. If nothing else is alive, a lost node is being replaced.
    machines = [node for node in alive if node["Resources"].get("CPU", 0)] or alive
    cpus = [int(node["Resources"].get("CPU", 0)) for node in machines]
    if not os.environ.get("RAY_ADDRESS"):
        cpus = [min(count, os.cpu_count() or 1) for count in cpus]
    config = config or RayConfig()
    configured_gib = config.memory_gib
    smallest = min(node["Resources"].get("memory", _MOST_MEMORY) for node in machines)
    of_machine = min(smallest / 3, _MOST_MEMORY) if configured_gib is None else configured_gib * 2**30
    at_once = min(sum(cpus), config.tasks or sum(cpus))
    return Budget(of_task=bytes_of_task(of_machine, max(*cpus, 1)), at_once=max(at_once, 1))


def bytes_of_task(of_machine: float, cores: int) -> int:
    """Bytes of each of `cores` tasks that share `of_machine` bytes."""
    return int(max(of_machine / cores - _WORKER_BYTES, _LEAST_TASK))


def memory_bytes(gib: float | None) -> int | None:
    """Convert GiB to bytes; None stays None."""
    return None if gib is None else int(gib * 2**30)


def require_resources(section: str, each: Mapping[str, float], *, workers: int | None = None) -> None:
    """Refuse resources that an embedded Ray does not have, because the stage would wait for them forever.

    On a cluster it does nothing: a cluster may grow.

    Args:
        section: configuration section of the workers, for the message.
        each: resources of each worker, from `resources`.
        workers: least number of workers, if that is a setting.

    Raises:
        UsageError: names the setting and what Ray has.
    """
    if os.environ.get("RAY_ADDRESS"):
        return
    import ray

    available = ray.cluster_resources()
    for name, setting, unit, help_ in (
        ("GPU", "gpus", "GPUs", ""),
        ("CPU", "cpus", "CPUs", ", or raise ray.num_cpus"),
        ("memory", "memory_gib", "GiB", ""),
    ):
        scale = 2**30 if name == "memory" else 1
        needed, present = each.get(name, 0) / scale, available.get(name, 0) / scale
        if (workers or 1) * needed > present:
            many, lower = (f"{section}.workers {workers} with ", "one of the two") if workers else ("", "it")
            raise UsageError(
                f"{many}{section}.{setting} {needed:g}{' each' if workers else ''}: Ray has {present:.3g} {unit} here; "
                f"lower {lower}{help_}."
            )


def silence_ray() -> None:
    """Hide Ray's own messages and progress bars.

    Ray Data configures its loggers at its first use, so that happens here before they are silenced.
    """
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray", "ray.train", "ray.tune", "ray.serve", "vllm"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "The maximum number of concurrent tasks for")  # few blocks: harmless
    # It logs the stack of an error that it also raises.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


@contextmanager
def _native_stderr_muted() -> Iterator[None]:
    """Discard what native code writes to standard error during the block: Ray prints its log level at each start.

    Exceptions are not affected.
    """
    standard_error, null_device = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null_device, 2)
        yield
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)
        os.close(null_device)


def _route_ray_output(quiet: bool) -> None:
    """Send Ray's messages to standard error, or discard them when quiet. Standard output is for results only.

    Ray has no setting for this, so its printing function is wrapped.
    """
    from ray._private import worker

    original = worker.print_to_stdstream

    def print_to_standard_error(data: dict[str, Any], ignore_prefix: bool) -> None:
        if not quiet:
            original({**data, "is_err": True}, ignore_prefix)

    if original.__module__ == worker.__name__:
        worker.print_to_stdstream = print_to_standard_error

"""One launcher of training loops under Ray Train, for teacher, student and ranker.

It starts the workers, sets their torch threads, prints each line that the loop appends to its learning curve, and
returns the result of rank 0. It must not know a model: a loop gets everything in `loop_config` and writes its results
under a directory named there.
"""

import json
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from prectr.core import progress
from prectr.core.errors import PrectrError, shorten

KEPT_CHECKPOINTS = 2
"""Checkpoints that Ray Train keeps. The newest may be incomplete after a crash, so there are two."""

RESTARTS = 3
"""Times that a run continues after a worker or its machine died; `train.restarts` sets it for rankers."""

Precision = Literal["auto", "float32", "bfloat16"]

_WORKER_ENVIRONMENT = {
    # Otherwise torch's threads spin at every barrier, and a step takes ten times as long if another process uses a
    # core.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Otherwise glibc returns large tensors to the kernel after each use and gets them back page by page, which costs
    # 10 to 20 % of an encoder's training.
    "MALLOC_MMAP_THRESHOLD_": str(4 * 2**30),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30),
    "MALLOC_TOP_PAD_": str(256 * 2**20),
}


def fit_on_ray(
    loop: Callable[[dict[str, Any]], Any],
    loop_config: dict[str, Any],
    *,
    name: str,
    storage: Path,
    workers: int | tuple[int, int] = 1,
    of_worker: Mapping[str, float],
    curve: Path | None = None,
    resumable: Path | None = None,
    restarts: int = RESTARTS,
) -> Any:
    """Run `loop(loop_config)` in Ray Train workers (gloo, or nccl with GPUs) and return the result of rank 0.

    Args:
        loop: an importable function; each worker calls it once.
        loop_config: argument of the loop. It must be serialisable; importable functions are.
        name: stage name, for messages.
        storage: an existing directory for Ray Train's own state, which is removed afterwards.
        workers: number of workers, or the least and the greatest number. With several workers the loop shards its data.
        of_worker: resources of each worker, from `prectr.core.ray_session.resources`. It gets as many torch threads as
            CPUs.
        curve: file of the JSONL learning curve to which the loop appends with `append_curve`; its lines are printed.
        resumable: an existing directory for the checkpoints that the loop reports. The same call after a killed driver
            continues from them. It is removed when the loop succeeds or raises a `PrectrError`. None: keep no
            checkpoints.
        restarts: times that the run continues after a worker died: from its last checkpoint, or from the beginning if
            the loop reported none.

    Raises:
        PrectrError: the loop raised one, or a worker died. The message holds the cause.
    """
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    run_name = f"{name}-{uuid.uuid4().hex[:8]}" if resumable is None else "run"
    run_storage = storage if resumable is None else resumable
    on_gpus = "GPU" in of_worker
    trainer = TorchTrainer(
        _threaded(loop, int(of_worker["CPU"])),
        train_loop_config=loop_config,
        torch_config=TorchConfig(backend="nccl" if on_gpus else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers, use_gpu=on_gpus, resources_per_worker=dict(of_worker)
        ),
        run_config=ray.train.RunConfig(
            name=run_name,
            storage_path=str(run_storage.resolve()),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=KEPT_CHECKPOINTS),
            failure_config=ray.train.FailureConfig(max_failures=restarts),
            worker_runtime_env={"env_vars": _WORKER_ENVIRONMENT},
            logging_config=ray.train.LoggingConfig("INFO" if progress.verbosity() > 0 else "ERROR"),
        ),
    )
    try:
        with _printed(curve, name), own_sigint():
            result = trainer.fit().return_value
        if resumable is not None:  # done or refused: nobody will continue from the checkpoints
            shutil.rmtree(resumable, ignore_errors=True)
        if isinstance(result, PrectrError):
            raise result
        return result
    except PrectrError:
        raise
    except Exception as error:
        cause = _root_cause(error)
        if isinstance(cause, PrectrError):
            raise cause from None
        raise PrectrError(f"{name}: training failed: {type(cause).__name__}: {shorten(cause, 1000)}") from error
    finally:
        if resumable is None:
            shutil.rmtree(run_storage / run_name, ignore_errors=True)


@contextmanager
def own_sigint() -> Iterator[None]:
    """Restore the handler of SIGINT afterwards: Ray Train and Tune leave theirs, which would stop no later stage."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def append_curve(curve: Path, point: Mapping[str, Any]) -> None:
    """Append one point to a learning curve as a JSON line; floats are rounded to six digits."""
    rounded = {key: round(value, 6) if isinstance(value, float) else value for key, value in point.items()}
    with curve.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(rounded) + "\n")


def read_curve(curve: Path) -> list[dict[str, Any]]:
    """Read the points of a learning curve."""
    return [json.loads(line) for line in curve.read_text(encoding="utf-8").splitlines()]


def has_amx() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware (AMX or AVX512-BF16, through oneDNN)."""
    import torch

    if not torch.backends.mkldnn.is_available():
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def autocast(precision: Precision, device: str = "cpu") -> Any:
    """The torch autocast context of a precision; see `in_bfloat16`."""
    import torch

    return torch.autocast(device, dtype=torch.bfloat16, enabled=in_bfloat16(precision, device))


def in_bfloat16(precision: Precision, device: str = "cpu") -> bool:
    """Whether to compute in bfloat16. With `auto`: on a GPU, and on a CPU with `has_amx`."""
    return precision == "bfloat16" or (precision == "auto" and (device != "cpu" or has_amx()))


def _threaded(loop: Callable[[dict[str, Any]], Any], threads: int) -> Callable[[dict[str, Any]], Any]:
    def run(config: dict[str, Any]) -> Any:
        import ray.train
        import torch

        # Ray sets OMP_NUM_THREADS to the worker's logical CPUs; an embedded Ray may have more of them than cores.
        torch.set_num_threads(max(1, min(threads, os.cpu_count() or 1)))
        try:
            return loop(config)
        except PrectrError as error:
            if ray.train.get_context().get_world_size() > 1:
                raise  # the other workers wait for this one, and its failure ends them
            return error  # the user must correct it; a restart would not help

    return run


def _root_cause(error: BaseException) -> BaseException:
    """The exception that a worker raised, without Ray's wrappers."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        return _root_cause(next(iter(failures.values())))
    inner = getattr(error, "cause", None) or error.__cause__
    return _root_cause(inner) if isinstance(inner, BaseException) else error


@contextmanager
def _printed(curve: Path | None, name: str) -> Any:
    """Print each new line of the learning curve during the block. Driver and workers must share its disk."""
    if curve is None:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_follow, args=(curve, name, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)


def _follow(curve: Path, name: str, stop: threading.Event) -> None:
    printed = 0
    while True:
        finished = stop.wait(0.5)
        lines = []
        with suppress(FileNotFoundError):  # not written yet, or removed by a worker that starts again
            lines = curve.read_text(encoding="utf-8").splitlines(keepends=True)
        for line in lines[printed:]:
            if line.endswith("\n"):
                point = json.loads(line)
                progress.say(f"  {name}: " + ", ".join(f"{key} {_short(value)}" for key, value in point.items()))
                printed += 1
        if finished:
            return


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

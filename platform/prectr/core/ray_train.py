"""Run a training loop under Ray Train: one launcher for teacher, student and ranker.

It starts the workers, gives each its torch threads, shows a progress line from the lines that the loop appends to its
learning curve, and returns what rank 0 returned. It knows nothing of models: a loop receives what it needs in
`loop_config`, and writes its results under a directory named there.
"""

import json
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from prectr.core import progress
from prectr.core.errors import PrectrError

KEPT_CHECKPOINTS = 2
"""One may have been cut short by whatever ended the run."""

RESTARTS = 3
"""How often a run goes on after a worker, or its machine, died; `train.restarts` sets it for rankers."""

Precision = Literal["auto", "float32", "bfloat16"]

_WORKER_ENVIRONMENT = {
    # Torch's threads otherwise spin at every barrier; where another process holds a core, a step then takes ten times
    # as long.
    "OMP_WAIT_POLICY": "PASSIVE",
    # glibc gives large tensors back to the kernel after each use and gets them again page by page: a tenth to a fifth
    # of an encoder's training.
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
    """Run `loop(loop_config)` in `workers` Ray Train workers (gloo, or nccl with GPUs) and return rank 0's result.

    Args:
        loop: an importable function; called once in each worker.
        loop_config: handed to the loop; must be serialisable (importable functions may be in it).
        name: stage name, for messages.
        storage: an existing directory for Ray Train's own state; what it writes there is removed again.
        workers: number of workers, or the fewest and the most; a loop that is given more than one shards its own data.
        of_worker: resources of each worker, from `prectr.core.ray_session.resources`; as many torch threads as CPUs.
        curve: the JSONL learning curve that the loop appends to through `append_curve`; its lines are shown.
        resumable: an existing directory that keeps the checkpoints which the loop reports, so that the same call after
            a killed driver goes on from them; removed when the loop has succeeded or refused. None keeps nothing.
        restarts: how often the run goes on after a worker died: from its last checkpoint, or from the beginning where
            the loop reports none.

    Raises:
        PrectrError: the loop failed with an error of the user's, or a worker died; the message holds the cause.
    """
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    run_name = f"{name}-{uuid.uuid4().hex[:8]}" if resumable is None else "run"
    kept = storage if resumable is None else resumable
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
            storage_path=str(kept.resolve()),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=KEPT_CHECKPOINTS),
            failure_config=ray.train.FailureConfig(max_failures=restarts),
            worker_runtime_env={"env_vars": _WORKER_ENVIRONMENT},
            logging_config=ray.train.LoggingConfig("INFO" if progress.verbosity() > 0 else "ERROR"),
        ),
    )
    try:
        with _shown(curve, name):
            result = trainer.fit().return_value
        if resumable is not None:  # there is nothing to go on with, or no use in it
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
        raise PrectrError(f"{name}: training failed: {type(cause).__name__}: {cause}") from error
    finally:
        if resumable is None:
            shutil.rmtree(kept / run_name, ignore_errors=True)


def append_curve(curve: Path, point: Mapping[str, Any]) -> None:
    """Append one line to a learning curve; floats are rounded to six digits to keep it readable."""
    rounded = {key: round(value, 6) if isinstance(value, float) else value for key, value in point.items()}
    with curve.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(rounded) + "\n")


def read_curve(curve: Path) -> list[dict[str, Any]]:
    """The points of a learning curve."""
    return [json.loads(line) for line in curve.read_text(encoding="utf-8").splitlines()]


def has_amx() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware (AMX or AVX512-BF16 reached through oneDNN)."""
    import torch

    if not torch.backends.mkldnn.is_available():
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def autocast(precision: Precision, device: str = "cpu") -> Any:
    """The autocast context of a precision, as `in_bfloat16` has it."""
    import torch

    return torch.autocast(device, dtype=torch.bfloat16, enabled=in_bfloat16(precision, device))


def in_bfloat16(precision: Precision, device: str = "cpu") -> bool:
    """Whether a precision means bfloat16; `auto` does on a GPU and where `has_amx`."""
    return precision == "bfloat16" or (precision == "auto" and (device != "cpu" or has_amx()))


def _threaded(loop: Callable[[dict[str, Any]], Any], threads: int) -> Callable[[dict[str, Any]], Any]:
    def run(config: dict[str, Any]) -> Any:
        import ray.train
        import torch

        # Ray sets OMP_NUM_THREADS from the worker's logical CPUs, of which an embedded Ray has more than the machine.
        torch.set_num_threads(max(1, min(threads, os.cpu_count() or 1)))
        try:
            return loop(config)
        except PrectrError as error:
            if ray.train.get_context().get_world_size() > 1:
                raise  # the others wait for this worker; its death ends them
            return error  # the user's to mend: starting again would not help

    return run


def _root_cause(error: BaseException) -> BaseException:
    """The exception that a worker raised, below the wrappers of Ray."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        return _root_cause(next(iter(failures.values())))
    inner = getattr(error, "cause", None) or error.__cause__
    return _root_cause(inner) if isinstance(inner, BaseException) else error


@contextmanager
def _shown(curve: Path | None, name: str) -> Any:
    """Say each line of the learning curve as it appears. The file must be on a disk that driver and worker share."""
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
    shown = 0
    while True:
        finished = stop.wait(0.5)
        lines = []
        with suppress(FileNotFoundError):  # not there yet, or a worker that begins anew has removed it
            lines = curve.read_text(encoding="utf-8").splitlines(keepends=True)
        for line in lines[shown:]:
            if line.endswith("\n"):
                point = json.loads(line)
                progress.say(f"  {name}: " + ", ".join(f"{key} {_short(value)}" for key, value in point.items()))
                shown += 1
        if finished:
            return


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

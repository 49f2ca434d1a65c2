"""Submit commands to a Ray cluster as jobs, and follow, list and stop them.

The code is sent as a working directory with the configuration in it, so that later changes of the checkout do not
change a job. The driver uses the packages of the nodes.
"""

import asyncio
import hashlib
import itertools
import json
import os
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prectr.core import progress
from prectr.core.errors import PrectrError, UsageError, shorten

SOURCE_ROOT = Path(__file__).resolve().parents[2]
CODE = ("platform/prectr", "models", "jobs", "serve_apps")
CONFIG_FILE = "submitted.yaml"
CHECK_SECONDS = 10
FAILED_TO_START = 1
READY_SECONDS = 180
NOT_READY = "No available agent"
_LOST = "the cluster stopped answering ({}). Run it again with the same --id to resume that job."


@dataclass(frozen=True)
class Submission:
    """A command to submit.

    Attributes:
        command: of `prectr`, with its arguments; paths are absolute or URIs.
        config: content of a configuration file, or None.
        environment: variables of the job.
        resources: of the entry point: `entrypoint_num_cpus`, `entrypoint_num_gpus`, `entrypoint_memory`.
        submission_id: name of the job; made by Ray if None.
    """

    command: Sequence[str]
    config: str | None = None
    environment: Mapping[str, str] | None = None
    resources: Mapping[str, float] | None = None
    submission_id: str | None = None

    @property
    def digest(self) -> str:
        """Hash of command and configuration: equal hashes mean the same work."""
        content = json.dumps([list(self.command), self.config])
        return hashlib.blake2b(content.encode(), digest_size=12).hexdigest()

    @property
    def entrypoint(self) -> str:
        """The command line of the driver."""
        config = [] if self.config is None else ["--config", CONFIG_FILE]
        return shlex.join(["python", "-m", "jobs.cli", *self.command, *config])


def job_client(address: str) -> Any:
    """A client of the cluster's job port.

    Raises:
        UsageError: nothing answers there, the token is missing or wrong, or Ray is of another version there.
    """
    import httpx
    import ray
    from ray.job_submission import JobSubmissionClient

    if not address.startswith(("http://", "https://")):
        raise UsageError(f"--address {address}: give the URL of the job port, such as http://HEAD:8265.")
    # Ray's client sends the token only in this mode; a cluster without tokens does not mind one.
    if "RAY_AUTH_MODE" not in os.environ and find_token() is not None:
        os.environ["RAY_AUTH_MODE"] = "token"
    token = find_token()
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    try:
        answer = httpx.get(f"{address.rstrip('/')}/api/version", headers=headers, timeout=CHECK_SECONDS)
    except httpx.HTTPError as error:
        raise UsageError(
            f"{address}: no Ray cluster answers there ({shorten(error)}); check the address and that the port can be "
            "reached."
        ) from None
    if answer.status_code in (401, 403):
        reason = "the token is not that cluster's" if token else "no token was found"
        raise UsageError(
            f"{address}: asks for a token, and {reason}; put it into RAY_AUTH_TOKEN, a file named by "
            "RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token (`ray get-auth-token` on the head prints it)."
        )
    try:
        theirs = answer.json()["ray_version"]
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{address}: answers, but is no Ray job port ({answer.status_code}).") from None
    if theirs != ray.__version__:
        raise UsageError(
            f"{address}: runs Ray {theirs}, this is Ray {ray.__version__}; use the same version on both sides."
        )
    return JobSubmissionClient(address)


def find_token() -> str | None:
    """Ray's token, from the variables and the file that Ray reads; None if there is none."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"]
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return file.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def submit(client: Any, submission: Submission) -> str:
    """Submit; returns the id of the job.

    A given id names the work. If its job runs or has succeeded, nothing is submitted; if it failed or was stopped, the
    next try is ID.2, then ID.3. So the same call after a lost connection resumes the job.

    Raises:
        UsageError: the id is that of another command.
        PrectrError: the cluster refused it, or stopped answering.
    """
    if submission.submission_id is not None:
        name, exists = _next_try(client, submission)
        if exists:
            return name
        submission = replace(submission, submission_id=name)
    with _packed(submission.config) as folder:
        environment = {"PYTHONPATH": "platform", **(submission.environment or {})}
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                job: str = client.submit_job(
                    entrypoint=submission.entrypoint,
                    submission_id=submission.submission_id,
                    runtime_env={"working_dir": str(folder), "env_vars": environment},
                    metadata={"prectr": submission.command[0], "work": submission.digest},
                    **(submission.resources or {}),
                )
            except OSError as error:  # of the connection
                raise PrectrError(_LOST.format(error)) from None
            except (RuntimeError, ValueError) as error:
                # A head that has just started answers before the agent that starts drivers does.
                if NOT_READY not in str(error) or time.monotonic() > deadline:
                    raise PrectrError(f"the cluster refused the job: {shorten(error)}") from None
                time.sleep(1)
            else:
                return job


def _next_try(client: Any, submission: Submission) -> tuple[str, bool]:
    """The name of the next try of a submission, and whether that job exists already."""
    for number in itertools.count(1):
        name = submission.submission_id if number == 1 else f"{submission.submission_id}.{number}"
        try:
            info = client.get_job_info(name)
        except RuntimeError:  # no such job
            return str(name), False
        except OSError as error:
            raise PrectrError(_LOST.format(error)) from None
        if (info.metadata or {}).get("work") != submission.digest:
            raise UsageError(f"--id {name}: is the id of another command there ({info.entrypoint}); give another one.")
        running = not info.status.is_terminal()
        if running or str(info.status) == "SUCCEEDED":
            progress.say(f"{name}: {'runs already' if running else 'has succeeded before'}, not started again")
            return str(name), True
    raise AssertionError("counted to the end")


def follow(client: Any, job: str) -> int:
    """Print the output of a job until it ends; returns its exit code."""

    async def tail() -> None:
        async for text in client.tail_job_logs(job):
            print(text, end="", flush=True)

    asyncio.run(tail())
    return wait(client, job)  # the connection may have ended before the job


def wait(client: Any, job: str, seconds: float = 1.0) -> int:
    """Wait until a job has ended; returns its exit code.

    Raises:
        PrectrError: the cluster no longer answers.
    """
    try:
        while not client.get_job_status(job).is_terminal():
            time.sleep(seconds)
        return exit_code(client, job)
    except OSError as error:  # of the connection
        raise PrectrError(
            f"job {job}: the cluster no longer answers ({shorten(error)}); the job may still run. See "
            "`prectr jobs list`; where it was lost, submit it again: it goes on."
        ) from None


def exit_code(client: Any, job: str) -> int:
    """The exit code of an ended job's driver, 0 if it succeeded; prints why it failed."""
    info = client.get_job_info(job)
    if str(info.status) == "SUCCEEDED":
        return 0
    progress.say(
        f"job {job}: {info.status}: {shorten((info.message or '').strip().splitlines()[-1:] or ['no reason is known'])}"
    )
    return int(info.driver_exit_code or FAILED_TO_START)


def existing_job(client: Any, job: str) -> None:
    """Check that the cluster knows a job.

    Raises:
        UsageError: it does not.
    """
    try:
        client.get_job_info(job)
    except RuntimeError as error:
        raise UsageError(f"{job}: no such job there ({shorten(error)}); see `prectr jobs list`.") from None


def jobs_table(client: Any) -> list[dict[str, Any]]:
    """Jobs of `prectr`, the newest first."""
    rows = [
        {
            "job": info.submission_id,
            "command": (info.metadata or {}).get("prectr", ""),
            "status": str(info.status),
            "started": info.start_time,
            "seconds": None if not info.end_time else (info.end_time - info.start_time) / 1000,
        }
        for info in client.list_jobs()
        if info.submission_id and "prectr" in (info.metadata or {})
    ]
    return sorted(rows, key=lambda row: row["started"] or 0, reverse=True)


@contextmanager
def _packed(config: str | None) -> Iterator[Path]:
    """A folder with a copy of the code, which Ray packs and sends."""
    with TemporaryDirectory(prefix="prectr-job-") as name:
        folder = Path(name)
        for part in CODE:
            shutil.copytree(SOURCE_ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        if config is not None:
            (folder / CONFIG_FILE).write_text(config, encoding="utf-8")
        yield folder

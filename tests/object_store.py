"""Servers of object storage for tests: an S3-compatible one (moto's) and an emulator of Google Cloud Storage."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.processes import free_port


@dataclass(frozen=True)
class ObjectStore:
    """A running server."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """What makes pyarrow, here and in processes, speak to it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }

    def bucket(self) -> str:
        """The URI of a new bucket."""
        name = f"bucket-{secrets.token_hex(6)}"
        httpx.put(f"{self.url}/{name}", timeout=30).raise_for_status()
        return f"s3://{name}"

    @contextmanager
    def without_rights(self) -> Iterator[None]:
        """The key opens nothing in the block."""
        httpx.post(f"{self.url}/moto-api/reset-auth", content="0", timeout=30).raise_for_status()
        try:
            yield
        finally:
            httpx.post(f"{self.url}/moto-api/reset-auth", content="inf", timeout=30).raise_for_status()


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """Start an S3-compatible server on a free port, and end it."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _server(command, folder / "moto.log", f"http://127.0.0.1:{port}/moto-api/data.json"):
        yield ObjectStore(f"http://127.0.0.1:{port}")


@contextmanager
def google_store(folder: Path) -> Iterator[tuple[dict[str, str], str]]:
    """Start an emulator on a free port, and end it.

    Yields:
        what makes pyarrow, here and in processes, speak to it; and the URI of a new bucket.
    """
    port = free_port()
    command = [str(Path(sys.executable).with_name("gcp-storage-emulator")), "start", "--in-memory"]
    command += ["--host=127.0.0.1", f"--port={port}", "--default-bucket=bucket"]
    with _server(command, folder / "google.log", url := f"http://127.0.0.1:{port}"):
        yield {"CLOUD_STORAGE_EMULATOR_ENDPOINT": url}, "gs://anonymous@bucket"


@contextmanager
def _server(command: list[str], log: Path, alive: str) -> Iterator[None]:
    """A server that runs for the block, once a URL of it is answered."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with log.open("wb") as said:
        server = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    httpx.get(alive, timeout=5).raise_for_status()
                    break
                except httpx.HTTPError:
                    assert server.poll() is None and time.monotonic() < deadline, log.read_text()
                    time.sleep(0.2)
            yield
        finally:
            server.terminate()
            server.wait(timeout=30)

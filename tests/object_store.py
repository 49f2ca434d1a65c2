"""An S3-compatible server (moto's) for tests, with buckets that are empty."""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx


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
    """Start a server on a free port, and end it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with (folder / "moto.log").open("wb") as said:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        store = ObjectStore(f"http://127.0.0.1:{port}")
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    httpx.get(f"{store.url}/moto-api/data.json", timeout=5).raise_for_status()
                    break
                except httpx.HTTPError:
                    assert server.poll() is None and time.monotonic() < deadline, (folder / "moto.log").read_text()
                    time.sleep(0.2)
            yield store
        finally:
            server.terminate()
            server.wait(timeout=30)

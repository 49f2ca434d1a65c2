"""Commands as jobs of a real cluster with a token: a head and a second node on this machine, driven by the command line
from another directory."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from jobs.cli import app
from jobs.submit import absolute_arguments
from prectr.errors import UsageError
from tests.processes import end_agents

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TINY = ("users=20", "items=300", "queries=20", "requests=60", "days=3")


@dataclass
class Head:
    """A cluster's head, and how to reach it."""

    address: str
    environment: dict[str, str]

    def prectr(
        self, *arguments: str, cwd: Path, token: str | None = None, timeout: float = 150
    ) -> subprocess.CompletedProcess[str]:
        """The command line in another directory."""
        environment = dict(self.environment)
        if token is not None:
            environment["RAY_AUTH_TOKEN"] = token
        command = [sys.executable, "-m", "jobs.cli", *arguments]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """`ray start` of a head with a token and of a node, ended by their process ids."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "token").write_text(secrets.token_hex(32))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = inherited | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    gcs, dashboard = _free_port(), _free_port()
    ray = str(Path(sys.executable).parent / "ray")
    common = [ray, "start", "--block", "--num-cpus=4", f"--object-store-memory={100 * 2**20}"]
    first = [*common, "--head", f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    started: list[subprocess.Popen[bytes]] = []
    address = f"http://127.0.0.1:{dashboard}"
    # The nodes' own code must be what travels with the job, not this checkout.
    of_nodes = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    token = {"authorization": f"Bearer {(folder / 'token').read_text()}"}
    try:
        with (folder / "head.log").open("wb") as said:
            started.append(subprocess.Popen(first, env=of_nodes, cwd=folder, stdout=said, stderr=said))
            deadline = time.monotonic() + 90
            while True:
                try:
                    if httpx.get(f"{address}/api/version", headers=token, timeout=5).status_code == 200:
                        break
                except httpx.HTTPError:
                    pass
                assert started[0].poll() is None and time.monotonic() < deadline, (folder / "head.log").read_text()
                time.sleep(0.5)
            second = [*common, f"--address=127.0.0.1:{gcs}"]
            started.append(subprocess.Popen(second, env=of_nodes, cwd=folder, stdout=said, stderr=said))
        yield Head(address, environment)
    finally:
        children = [child for one in started for child in psutil.Process(one.pid).children(recursive=True)]
        for one in reversed(started):
            one.send_signal(signal.SIGTERM)
        for one in started:
            one.wait(timeout=60)
        end_agents(children)


def test_a_command_runs_as_a_job_and_its_exit_code_comes_back(head: Head, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text("simulate: {users: 20, items: 300, queries: 20, requests: 60, days: 3}\n")
    submit = ("submit", "--address", head.address, "--id", "first", "--follow")
    ran = head.prectr(*submit, "simulate", "--out", "tables", "--config", "small.yaml", "--seed", "3", cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "simulate: done" in ran.stdout, "what the job says is printed"
    manifest = json.loads((tmp_path / "tables" / "manifest.json").read_text())
    assert manifest["config"]["users"] == 20 and manifest["config"]["seed"] == 3
    (tmp_path / "tables" / "manifest.json").unlink()
    same = head.prectr(*submit, "simulate", "--out", "tables", "--config", "small.yaml", "--seed", "3", cwd=tmp_path)
    assert same.returncode == 0 and "first: has succeeded before" in same.stderr
    assert not (tmp_path / "tables" / "manifest.json").exists(), "nothing was run again"
    other = head.prectr(*submit, "simulate", "--out", "elsewhere", cwd=tmp_path)
    assert other.returncode == 2 and "--id first: is the id of another command there" in other.stderr
    again = head.prectr("submit", "--address", head.address, "--follow", "validate", "nowhere", cwd=tmp_path)
    assert again.returncode not in (0, None), "a job that fails fails here, too"
    assert "nowhere" in again.stdout and "Traceback" not in again.stderr

    listed = head.prectr("jobs", "list", "--address", head.address, "--json", cwd=tmp_path)
    rows = json.loads(listed.stdout)
    assert {row["command"]: row["status"] for row in rows} == {"simulate": "SUCCEEDED", "validate": "FAILED"}
    logs = head.prectr("jobs", "logs", "first", "--address", head.address, cwd=tmp_path)
    assert "simulate: done" in logs.stdout
    unknown = head.prectr("jobs", "stop", "nothing", "--address", head.address, cwd=tmp_path)
    assert unknown.returncode == 2 and "no such job" in unknown.stderr


def test_a_wrong_token_and_a_wrong_address_are_told_before_anything_is_sent(head: Head, tmp_path: Path) -> None:
    wrong = head.prectr(
        "submit", "--address", head.address, "simulate", "--out", "x", cwd=tmp_path, token=secrets.token_hex(32)
    )
    assert wrong.returncode == 2 and "the token is not that cluster's" in wrong.stderr
    nobody = f"http://127.0.0.1:{_free_port()}"
    lost = head.prectr("submit", "--address", nobody, "simulate", "--out", "x", cwd=tmp_path)
    assert lost.returncode == 2 and "no Ray cluster answers there" in lost.stderr
    other = head.prectr("submit", "--address", "ray://x:1", "simulate", "--out", "x", cwd=tmp_path)
    assert other.returncode == 2 and "give the URL of the job port" in other.stderr
    assert not (tmp_path / "x").exists()
    told = head.prectr("doctor", "--address", head.address, "--json", "--storage", str(tmp_path), cwd=tmp_path)
    findings = {one["check"]: one for one in json.loads(told.stdout)}
    assert findings["cluster"]["status"] == "ok" and findings["storage"]["status"] == "ok"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "name a command"),
        (["serve", "x"], "no command for a cluster; there are"),
        (["nosuch"], "no command for a cluster"),
        (["train", "--samples", "x"], "Missing option '--encoder'"),
        (["simulate", "--out", "x", "--colour", "red"], "No such option"),
    ],
)
def test_a_wrong_command_is_told_here(command: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        absolute_arguments(command, app)


def test_paths_mean_the_same_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("train: {epochs: 1}\n")
    given = ["train", "--samples", "ws/samples", "--encoder", "/shared/encoder", "--preferences", "p", "--out", "o"]
    options = ["--model", "din", "--set", "a=b", "--set", "c=d", "--config", "c.yaml", "-vv", "--force"]
    found, config = absolute_arguments([*given, *options], app)
    assert found[:7] == ["train", "--samples", f"{tmp_path}/ws/samples", "--encoder", "/shared/encoder",
                         "--preferences", f"{tmp_path}/p"]  # fmt: skip
    assert found.count("--set") == 2 and found.count("--verbose") == 2 and "--force" in found
    assert "--config" not in found and config == "train: {epochs: 1}\n"

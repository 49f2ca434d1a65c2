"""A Ray cluster of several nodes on this machine, with a token: nodes are added, killed and ended by their process ids.

Each node is a `ray start --block` of its own, as on a machine of its own; it shares this machine's disk and loopback
address with the others.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from tests.processes import CODE, end_agents, free_port

OBJECT_STORE = 100 * 2**20
AGENT_PORTS = ("dashboard-agent-listen", "dashboard-agent-grpc", "runtime-env-agent", "metrics-export")
"""Given, because a raylet waits 15 seconds at most to be told them, and because the first one's default is one for all
nodes of a machine: where another has it, no job can be submitted."""
STARTED = "Ray runtime started."
START_SECONDS = 120
STARTS = 8
END_SECONDS = 90
OF_ALL_NODES = {
    "RAY_worker_register_timeout_seconds": "300",  # on a busy machine
    "RAY_worker_niceness": "0",  # Ray's own 15 would starve the workers beside whatever else is tested
    # A node that is gone is given up after about five seconds, not 15; one that is only slow has as long as ever.
    "RAY_health_check_period_ms": "1000",
}


@dataclass
class Node:
    """A running `ray start --block`."""

    process: subprocess.Popen[bytes]
    log: Path

    def processes(self) -> list[psutil.Process]:
        """Of the node: raylet, agents and workers, the outermost first."""
        with contextlib.suppress(psutil.NoSuchProcess):
            outermost = psutil.Process(self.process.pid)
            return [outermost, *outermost.children(recursive=True)]
        return []

    def kill(self) -> None:
        """All of it at once, as when the machine loses its power."""
        processes = self.processes()
        for one in processes:  # nobody may act on the death of another
            with contextlib.suppress(psutil.NoSuchProcess):
                one.suspend()
        grown = [one for one in self.processes() if one not in processes]
        for one in (*processes, *grown):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait()


@dataclass
class RayCluster:
    """A head and the nodes that joined it.

    Attributes:
        address: URL of the job port.
        gcs: address that nodes join.
        environment: of a command line that talks to the cluster.
        of_nodes: environment of every node.
        of_head: variables of the head alone.
        head_cpus: of the head, for tasks.
        nodes: all that were ever started, the last one last.
    """

    folder: Path
    address: str
    gcs: str
    environment: dict[str, str]
    of_nodes: dict[str, str]
    of_head: Mapping[str, str]
    head_cpus: int
    nodes: list[Node] = field(default_factory=list)
    temporary: list[Path] = field(default_factory=list)

    def add_node(self, cpus: int, variables: Mapping[str, str] | None = None) -> Node:
        """Start a node, with some variables of its own; until it has joined."""
        return self._start([f"--num-cpus={cpus}", f"--address={self.gcs}"], variables or {})

    def prectr(
        self, *arguments: str, cwd: Path, token: str | None = None, timeout: float = 150
    ) -> subprocess.CompletedProcess[str]:
        """The command line in another directory, with the cluster's token or a given one."""
        environment = self.environment | ({} if token is None else {"RAY_AUTH_TOKEN": token})
        command = [sys.executable, "-m", "jobs.cli", *arguments]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)

    def start_prectr(self, *arguments: str, cwd: Path, said: Path) -> subprocess.Popen[bytes]:
        """The same, not waited for; what it says goes to a file."""
        with said.open("wb") as stream:
            return subprocess.Popen(
                [sys.executable, "-m", "jobs.cli", *arguments],
                cwd=cwd,
                env=self.environment,
                stdout=stream,
                stderr=stream,
            )

    def _start(self, options: Sequence[str], variables: Mapping[str, str]) -> Node:
        """Start a node, and again where it failed, as a supervisor does."""
        ray = str(Path(sys.executable).parent / "ray")
        for _ in range(STARTS):
            # In the temporary directory itself: Ray puts sockets below, whose paths must be short.
            own = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
            self.temporary.append(Path(own))
            command = [ray, "start", "--block", f"--temp-dir={own}", f"--object-store-memory={OBJECT_STORE}", *options]
            command += [f"--{name}-port={free_port()}" for name in AGENT_PORTS]
            log = self.folder / f"node-{len(self.nodes)}.log"
            with log.open("wb") as said:
                process = subprocess.Popen(
                    command, env=self.of_nodes | dict(variables), cwd=self.folder, stdout=said, stderr=said
                )
            node = Node(process, log)
            self.nodes.append(node)
            deadline = time.monotonic() + START_SECONDS
            while process.poll() is None and time.monotonic() < deadline:
                if STARTED in log.read_text():
                    return node
                time.sleep(0.1)
        raise AssertionError(log.read_text())

    @property
    def headers(self) -> dict[str, str]:
        """What a request to the job port must bear."""
        return {"authorization": f"Bearer {Path(self.environment['RAY_AUTH_TOKEN_PATH']).read_text()}"}

    def _wait_for_head(self) -> None:
        """Until its job port answers."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.address}/api/version", headers=self.headers, timeout=5).status_code == 200:
                    return
            assert time.monotonic() < deadline, self.nodes[-1].log.read_text()
            time.sleep(0.2)

    def start_head(self) -> Node:
        """Start the head, or start it again; until its job port answers. It has no CPU for tasks unless told."""
        host, port = self.address.removeprefix("http://").split(":")
        gcs = self.gcs.split(":")[1]
        node = self._start(
            [
                "--head",
                f"--port={gcs}",
                f"--dashboard-host={host}",
                f"--dashboard-port={port}",
                f"--num-cpus={self.head_cpus}",
            ],
            self.of_head,
        )
        self._wait_for_head()
        return node

    def _end(self) -> None:
        children = [one for node in self.nodes for one in node.processes()[1:]]
        for node in reversed(self.nodes):
            node.process.send_signal(signal.SIGTERM)
        for node in self.nodes:
            try:
                node.process.wait(timeout=END_SECONDS)
            except subprocess.TimeoutExpired:
                node.kill()
        end_agents(children)
        for own in self.temporary:
            shutil.rmtree(own, ignore_errors=True)


@contextmanager
def ray_cluster(
    folder: Path,
    head_cpus: int = 0,
    of_nodes: Mapping[str, str] | None = None,
    of_head: Mapping[str, str] | None = None,
) -> Iterator[RayCluster]:
    """A cluster of a head alone for the block.

    Args:
        folder: for the token and the logs.
        head_cpus: of the head, for tasks.
        of_nodes: further variables of every node.
        of_head: of the head alone.
    """
    (folder / "token").write_text(secrets.token_hex(32))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    basis = {name: value for name, value in inherited.items() if name != "PYTHONPATH"} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str((folder / "token").resolve()),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    cluster = RayCluster(
        folder=folder,
        address=f"http://127.0.0.1:{free_port()}",
        gcs=f"127.0.0.1:{free_port()}",
        environment=basis | {"PYTHONPATH": CODE},
        # Without the path of the code: the nodes' own must be what travels with a job, not this checkout.
        of_nodes=basis | OF_ALL_NODES | dict(of_nodes or {}),
        of_head=of_head or {},
        head_cpus=head_cpus,
    )
    try:
        cluster.start_head()
        yield cluster
    finally:
        cluster._end()

"""The head of a cluster dies and comes back, its state in Redis: replicas and proxy of a worker node go on answering.

The ranker is served behind HAProxy, as `cluster/kuberay/service.yaml` does it; requests go to the worker's proxy only.
"""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.prectr.bundle_world import World
from tests.processes import CODE, free_port
from tests.ray_cluster import RayCluster, ray_cluster
from tests.redis_server import RedisServer

pytestmark = pytest.mark.faults
BODY = {"user_id": "u0", "query": "nokia 3310", "candidates": [f"i{number}" for number in range(5)]}
PATIENCE = 300


@dataclass
class Serving:
    """The ranker on a cluster.

    Attributes:
        url: of the worker's proxy.
        bundles: two that differ in their version.
    """

    cluster: RayCluster
    url: str
    head_port: int
    bundles: dict[str, Path]

    def deploy(self, bundle: str) -> None:
        """As `serve deploy` does."""
        deployment = {"name": "Ranker", "user_config": {"bundles": {"m": str(self.bundles[bundle])}}}
        application = {
            "name": "ranker",
            "route_prefix": "/",
            "import_path": "serve_apps.ranker:build_app",
            "args": {"serve": {"replicas": 1, "playground": False}},
            "deployments": [deployment],
        }
        config = {
            "proxy_location": "EveryNode",
            "http_options": {"host": "127.0.0.1", "port": self.head_port},
            "applications": [application],
        }
        wait_for(lambda: self._ask("PUT", config).status_code == 200)

    def status(self) -> dict[str, Any]:
        """As `serve status` has it; empty while the head does not answer."""
        with suppress(httpx.HTTPError):
            answer = self._ask("GET")
            if answer.status_code == 200:
                found: dict[str, Any] = answer.json()
                return found
        return {}

    def healthy(self) -> bool:
        """The application runs, and so does a proxy on each of the two nodes."""
        told = self.status()
        proxies = [proxy["status"] for proxy in told.get("proxies", {}).values()]
        applications = told.get("applications", {})
        return proxies == ["HEALTHY"] * 2 and "ranker" in applications and applications["ranker"]["status"] == "RUNNING"

    def version(self) -> str:
        """What the worker's proxy answers with; empty where it fails."""
        with suppress(httpx.HTTPError):
            answer = httpx.post(f"{self.url}/v1/score", json=BODY, timeout=60)
            if answer.status_code == 200:
                return str(answer.json()["version"])
        return ""

    def _ask(self, method: str, content: Any = None) -> httpx.Response:
        address = f"{self.cluster.address}/api/serve/applications/"
        return httpx.request(method, address, json=content, headers=self.cluster.headers, timeout=PATIENCE)


@dataclass
class Client:
    """One request after another, and what came of each."""

    versions: list[str] = field(default_factory=list)

    def answers(self, wanted: int, within: float = PATIENCE) -> None:
        """Until so many more have come."""
        before = len(self.versions)
        wait_for(lambda: len(self.versions) >= before + wanted, within)


@contextmanager
def asking(serving: Serving) -> Iterator[Client]:
    """Requests for the length of a block."""
    client, done = Client(), threading.Event()

    def ask() -> None:
        while not done.wait(0.05):
            client.versions.append(serving.version())

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield client
    finally:
        done.set()
        thread.join(timeout=90)


def wait_for(condition: Callable[[], Any], seconds: float = PATIENCE) -> None:
    """Until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def proxies_of_its_own(folder: str) -> dict[str, str]:
    """Variables of a node whose HAProxy shares the machine with another's."""
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    }


@pytest.fixture
def serving(world: World, tmp_path: Path) -> Iterator[Serving]:
    bundles = {name: tmp_path / name for name in ("a", "b")}
    for path in bundles.values():
        shutil.copytree(world.bundle, path)
    manifest = bundles["b"] / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"identity": "', '"identity": "b', 1))
    worker_port = free_port()
    of_nodes = {
        "PYTHONPATH": CODE,
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        "RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(worker_port),
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # on a busy machine
        # How long nodes wait for a head that is away; KubeRay sets the same.
        "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
    }
    redis = RedisServer(tmp_path)
    redis.start()
    with (
        tempfile.TemporaryDirectory(prefix="hp-", dir="/tmp") as of_head,
        tempfile.TemporaryDirectory(prefix="hp-", dir="/tmp") as of_worker,
    ):
        head = {"RAY_REDIS_ADDRESS": f"127.0.0.1:{redis.port}", "RAY_external_storage_namespace": "prectr"}
        try:
            with ray_cluster(tmp_path, of_nodes=of_nodes, of_head=head | proxies_of_its_own(of_head)) as cluster:
                cluster.add_node(2, proxies_of_its_own(of_worker))
                yield Serving(cluster, f"http://127.0.0.1:{worker_port}", free_port(), bundles)
        finally:
            redis.stop()


@pytest.mark.timeout(1200)
def test_requests_are_answered_while_the_head_is_away_and_it_takes_up_its_work_again(serving: Serving) -> None:
    serving.deploy("a")
    wait_for(serving.healthy)
    wait_for(serving.version)
    with asking(serving) as client:
        client.answers(20)
        serving.cluster.nodes[0].kill()
        client.answers(100)
        assert serving.status() == {}, "the head is away"
        serving.cluster.start_head()
        client.answers(50)
        wait_for(serving.healthy)
        client.answers(50)
        old = client.versions[0]
        assert set(client.versions) == {old}, "none failed"
        serving.deploy("b")
        wait_for(lambda: client.versions[-1] != old)
        client.answers(20)
    assert "" not in client.versions and len(set(client.versions)) == 2

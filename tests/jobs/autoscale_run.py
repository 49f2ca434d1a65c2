"""Labels with a teacher group that scales from zero, on Ray's real autoscaler; prints what was seen as JSON.

Run by `test_label_autoscales.py` in a process of its own, because a process can be in one Ray cluster only. The
autoscaler starts and stops the group's machines, which are raylets of this machine with resources of their own.

    python tests/jobs/autoscale_run.py TABLES OUT
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"

import psutil
import ray
from ray._private import services
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
from ray.cluster_utils import Cluster

from jobs import label
from prectr.core.ray_session import prepare_environment, silence_ray
from prectr.labelling.config import LabelConfig, SelectionConfig
from tests.jobs.test_label_faults import SlowServer
from tests.openai_server import Asked

AT_ONCE = 4
STORE = 100 * 2**20
IDLE_SECONDS = 5
GONE_SECONDS = 60
"""The group's machines must be gone so long after a run."""


class PatientServer(SlowServer):
    """Answers slowly until a second replica asks, however long that takes to start; then fast."""

    def __init__(self) -> None:
        super().__init__(seconds=1.0)
        self.most, self._under_way, self._counting = 0, 0, threading.Lock()

    def next_fault(self, asked: Asked) -> object:
        """Counts the questions that are under way: more than `AT_ONCE` come from more than one replica."""
        with self._counting:
            self._under_way += 1
            self.most = max(self.most, self._under_way)
            if self.most > AT_ONCE:
                self.seconds = 0.02
        fault = super().next_fault(asked)
        with self._counting:
            self._under_way -= 1
        return fault


@contextmanager
def autoscaling_cluster(folder: Path) -> Iterator[None]:
    """A head, and a group of 0 to 2 machines with one `teacher` each; joined by this process.

    Not `ray.cluster_utils.AutoscalingCluster`: it ends every Ray of the machine (`ray stop --force`) and reads a file
    that Ray's wheel lacks. Ray's fake provider needs neither when it is named as an external one.
    """
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    group = {"CPU": 2, "teacher": 1, "object_store_memory": STORE}
    settings = {
        "cluster_name": "labels",
        "max_workers": 2,
        "idle_timeout_minutes": IDLE_SECONDS / 60,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": f"{services.get_node_ip_address()}:{port}",
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
            "disable_node_updaters": True,
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 4}, "node_config": {}, "max_workers": 0},
            "teacher-group": {"resources": group, "node_config": {}, "min_workers": 0, "max_workers": 2},
        },
        # Ray demands these of every provider.
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "cluster_synced_files": [],
    }
    file = folder.absolute() / "autoscaling.json"
    file.write_text(json.dumps(settings))
    # The processes of the head inherit these: its autoscaler knows it by the name that the provider gives it.
    os.environ |= {
        "RAY_enable_autoscaler_v2": "1",
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }
    head = {"num_cpus": 4, "object_store_memory": STORE, "include_dashboard": False, "gcs_server_port": port}
    cluster = Cluster(initialize_head=True, head_node_args=head | {"autoscaling_config": str(file)})
    try:
        os.environ["RAY_ADDRESS"] = cluster.address
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        silence_ray()
        yield
    finally:
        processes = psutil.Process().children(recursive=True)
        ray.shutdown()
        cluster.shutdown()
        for process in psutil.wait_procs(processes, timeout=3)[1]:  # machines that the autoscaler can no longer end
            process.kill()


def machines() -> int:
    """Machines of the group that are in the cluster now."""
    return sum(node["Alive"] and node["Resources"].get("teacher", 0) == 1 for node in ray.nodes())


class Watch:
    """Notes when the number of the group's machines changes, from before the block until they are gone after it."""

    def __enter__(self) -> "Watch":
        self.started = time.monotonic()
        self.seen = [(0.0, machines())]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.finished = self.now()
        while self.seen[-1][1] and self.now() < self.finished + GONE_SECONDS:
            time.sleep(0.1)
        self._done.set()
        self._thread.join()

    def now(self) -> float:
        """Seconds since the block began."""
        return round(time.monotonic() - self.started, 2)

    def _look(self) -> None:
        while not self._done.wait(0.1):
            if (count := machines()) != self.seen[-1][1]:
                self.seen.append((self.now(), count))


def label_on(place: str, wait_seconds: float, tables: Path, out: Path) -> dict[str, Any]:
    """Label with 1 to 2 replicas that want a machine with `place`; what was seen, and how it ended."""
    replicas = {"at_least": 1, "at_most": 2, "resources": {place: 1}, "cpus": 0.5, "wait_seconds": wait_seconds}
    config = {
        "replicas": replicas,
        "http": {"at_once": AT_ONCE},
        "batch_size": 5,
        "repeat_sample": 0,
        "ledger": out / "ledger",
    }
    failure = {"type": "", "text": ""}
    with PatientServer() as server, Watch() as watch:
        try:
            label.run(
                tables=tables,
                teacher=server.url,
                out=out / "labels",
                config=LabelConfig.model_validate(config),
                selection=SelectionConfig(budget=300),
            )
        except Exception as error:  # the test judges which it may be
            failure = {"type": type(error).__name__, "text": str(error)}
    asked = server.asked()
    first = min((question.at for question in server.questions if question.prompt in asked), default=watch.started)
    return {
        "machines": watch.seen,
        "first_question": round(first - watch.started, 2),
        "finished": watch.finished,
        "most_under_way": server.most,
        "times_asked": sorted(asked.values()),
        "failure": failure,
    }


def main(tables: Path, out: Path) -> None:
    """Replicas that no machine can hold, then such that the group's machines can."""
    prepare_environment()
    with autoscaling_cluster(out.parent):
        found = {
            "nowhere": label_on("nowhere", 8.0, tables, out / "nowhere"),
            "teacher": label_on("teacher", 120.0, tables, out / "teacher"),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))

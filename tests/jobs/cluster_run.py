"""Mines and samples one log on clusters of 1, 2 and 4 nodes, and on one that loses a node half-way; prints digests.

Run by `test_mining_on_a_cluster.py` in a process of its own, because a process can be in one Ray cluster only. The
nodes are raylets of this machine, each with its own workers and object store.

    python tests/jobs/cluster_run.py TABLES RELEVANCE OUT
"""

import hashlib
import json
import os
import sys
import threading
import time
from pathlib import Path

os.environ["RAY_AUTH_MODE"] = "disabled"

import ray
from ray.cluster_utils import Cluster

from jobs import build_samples, mine_preferences
from prectr.core.ray_session import RayConfig, prepare_environment, silence_ray
from prectr.features.config import SamplesConfig
from prectr.preferences.config import PreferencesConfig

SMALL = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
BUDGET = RayConfig(memory_gib=0.4)


def digest(artifact: Path) -> str:
    """Hash of an artifact's Parquet files, with their names."""
    total = hashlib.blake2b()
    for file in sorted(artifact.rglob("*.parquet")):
        total.update(str(file.relative_to(artifact)).encode() + file.read_bytes())
    return total.hexdigest()


def run(tables: Path, relevance: Path, out: Path) -> dict[str, str]:
    """Both stages; the digests of their artifacts."""
    mined, made = out / "preferences", out / "samples"
    config = PreferencesConfig(holdout_days=1)
    mine_preferences.run(tables=tables, relevance=relevance, out=mined, config=config, ray_config=BUDGET)
    build_samples.run(
        tables=tables,
        relevance=relevance,
        preferences=mined,
        out=made,
        config=SamplesConfig(),
        ray_config=BUDGET,
    )
    return {"preferences": digest(mined), "samples": digest(made / "rows")}


def lose_a_node(cluster: Cluster, node: object, out: Path, lost: list[bool]) -> threading.Thread:
    """Kill a node, with its workers, once the second pass over the log has left its first files.

    `lost` is told whether the artifact was still being built then.
    """

    def watch() -> None:
        while not list(out.glob(".preferences.building-*/days/*/pair/*.parquet")):
            time.sleep(0.01)
        cluster.remove_node(node, allow_graceful=False)
        lost.append(not (out / "preferences").exists())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def main(tables: Path, relevance: Path, out: Path) -> None:
    """Run on ever larger clusters, then lose a node."""
    prepare_environment()
    cluster = Cluster(initialize_head=True, head_node_args=SMALL)
    os.environ["RAY_ADDRESS"] = cluster.address
    ray.init(address=cluster.address, log_to_driver=False)
    silence_ray()
    found: dict[str, object] = {}
    nodes = []
    for wanted in (1, 2, 4):
        while len(nodes) + 1 < wanted:
            nodes.append(cluster.add_node(**SMALL))
        cluster.wait_for_nodes()
        found[f"{wanted} nodes"] = run(tables, relevance, out / str(wanted))
    lost: list[bool] = []
    thread = lose_a_node(cluster, nodes[-1], out / "lost", lost)
    found["a node lost"] = run(tables, relevance, out / "lost")
    thread.join(timeout=60)
    alive = sum(entry["Alive"] for entry in ray.nodes())
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps({"digests": found, "alive": alive, "while_building": lost}))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))

"""Mining and sampling on clusters of 1, 2 and 4 nodes give the same bytes, and so does a cluster that loses a node."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import simulate
from prectr.marketplace import MarketplaceConfig
from tests.jobs.test_mining_days import _score

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(400)
def test_any_cluster_gives_the_same_bytes(tmp_path: Path) -> None:
    config = MarketplaceConfig(users=80, items=300, queries=20, requests=4000, days=8, requests_per_file=250)
    simulate.run(out=tmp_path / "tables", config=config)
    _score(tmp_path / "tables", tmp_path / "relevance")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_ADDRESS")}
    environment["PYTHONPATH"] = f"{ROOT}:{ROOT / 'platform'}"
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/jobs/cluster_run.py"), "tables", "relevance", "out"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert (found["alive"], found["while_building"]) == (3, [True]), "the node was lost while the job ran"
    one = found["digests"]["1 nodes"]
    for name, digests in found["digests"].items():
        assert digests == one, name

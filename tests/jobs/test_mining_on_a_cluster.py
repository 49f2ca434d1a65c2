"""Mining and sampling on clusters of 1, 2 and 4 nodes give the same bytes, and so does a cluster that loses a node.

All nodes are processes of this machine, with one thread a task; nodes with different processors may round differently.
"""

from pathlib import Path

import pytest

from jobs import simulate
from prectr.data.marketplace import MarketplaceConfig
from tests.jobs.test_mining_days import _score
from tests.processes import answer_of

pytestmark = pytest.mark.faults


@pytest.mark.timeout(400)
def test_any_cluster_gives_the_same_bytes(tmp_path: Path) -> None:
    config = MarketplaceConfig(users=80, items=300, queries=20, requests=4000, days=8, requests_per_file=250)
    simulate.run(out=tmp_path / "tables", config=config)
    _score(tmp_path / "tables", tmp_path / "relevance")
    found = answer_of("jobs/cluster_run.py", "tables", "relevance", "out", cwd=tmp_path, timeout=380)
    assert (found["alive"], found["while_building"]) == (3, [True]), "the node was lost while the job ran"
    one = found["digests"]["1 nodes"]
    for name, digests in found["digests"].items():
        assert digests == one, name

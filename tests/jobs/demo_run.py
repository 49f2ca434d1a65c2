"""`prectr demo` on a tiny marketplace: one workspace that the tests of jobs share and may copy, not change.

The teacher answers through vLLM where that is installed.
"""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs import demo
from jobs.settings import Settings
from prectr.core.artifacts import read_manifest

TINY = """
simulate: {users: 50, items: 800, queries: 60, requests: 500, days: 5}
teacher:
  {width: 32, heads: 1, layers: 1, feed_forward: 32, vocabulary: 400, warm_start_pairs: 200, epochs: 1, batch_size: 64}
selection: {budget: 300}
label: {repeat_sample: 50, vllm: {through: ray.data.llm}}
distill:
  encoder: {layers: 1, width: 32, heads: 2, feed_forward: 32, vocabulary: 500, max_length: 24}
  epochs: 1
relevance: {actors: 1}
samples: {ids: {item_id: {kind: vocabulary, minimum_count: 3, size: 200}}}
train: {epochs: 1, batch_size: 1024, evaluations_per_epoch: 2}
"""
STAGES = (
    *("tables", "teacher", "labels-selection", "labels", "encoder", "relevance", "preferences", "samples"),
    *("rankers/wide-deep", "rankers/prectr", "rankers/prectr-v2", "reports/evaluation", "reports/page"),
)


@dataclass(frozen=True)
class Ran:
    """A workspace after `prectr demo`, and what the command said."""

    workspace: Path
    settings: Settings
    output: str
    messages: str

    @property
    def bundle(self) -> Path:
        return self.workspace / "rankers" / "prectr-v2"

    def manifests(self) -> dict[str, Any]:
        return {stage: read_manifest(self.workspace / stage) for stage in STAGES}


def run_demo(workspace: Path, settings: Settings) -> Ran:
    output, messages = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(messages):
        demo.run(workspace=workspace, source=None, settings=settings)
    return Ran(workspace, settings, output.getvalue(), messages.getvalue())

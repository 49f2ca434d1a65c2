"""ablate: train and judge PRECTR-V2 without one part at a time, with several seeds: the paper's ablation table.

Differences and verdicts refer to PRECTR-V2, RelaImpr refers to PRECTR.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jobs import evaluate, train_contestants
from jobs.options import Encoder, Force, Labels, Out, Preferences, Rankers, Samples, Seeds, TablesIn, command
from prectr.core.artifacts import StageResult
from prectr.core.ray_session import RayConfig
from prectr.evaluation.config import EvaluateConfig
from prectr.evaluation.contestants import ABLATIONS
from prectr.training.config import TrainConfig

FULL, EARLIER = "prectr-v2", "prectr"


@command("ablate", show=evaluate.answer_of)
def run(
    *,
    tables: TablesIn,
    samples: Samples,
    preferences: Preferences,
    labels: Labels,
    encoder: Encoder,
    rankers: Rankers = None,
    out: Out,
    seeds: Seeds = 1,
    train: TrainConfig,
    config: EvaluateConfig,
    ray_config: RayConfig | None = None,
    force: Force = False,
) -> StageResult:
    """Train missing bundles into `rankers` and publish the table at `out`; raises as `evaluate` and `train`."""
    bundles: Mapping[str, Sequence[Path]] = train_contestants.run(
        ABLATIONS,
        seeds,
        samples=samples,
        encoder=encoder,
        preferences=preferences,
        rankers=rankers or samples.parent / "rankers",
        config=train,
        ray_config=ray_config,
    )
    return evaluate.run(
        tables=tables,
        samples=samples,
        preferences=preferences,
        bundles=bundles,
        labels=labels,
        encoder=encoder,
        out=out,
        config=config,
        base=FULL,
        improvement_base=EARLIER,
        force=force,
    )

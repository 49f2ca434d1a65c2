"""ablate: PRECTR-V2 with its parts taken away one by one, every variant with several seeds: the paper's second table.

Differences and verdicts are against PRECTR-V2 (does it lose without the part?), RelaImpr is against PRECTR.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jobs import evaluate, train_contestants
from prectr.core.artifacts import StageResult
from prectr.core.ray_session import RayConfig
from prectr.evaluation.config import EvaluateConfig
from prectr.evaluation.contestants import ABLATIONS
from prectr.training.config import TrainConfig

FULL, EARLIER = "prectr-v2", "prectr"


def run(
    *,
    tables: Path,
    samples: Path,
    preferences: Path,
    labels: Path,
    encoder: Path,
    rankers: Path,
    out: Path,
    seeds: int,
    train: TrainConfig,
    config: EvaluateConfig,
    ray_config: RayConfig | None = None,
    force: bool = False,
) -> StageResult:
    """Train what is missing into `rankers`, and publish the table at `out`; raises as `evaluate` and `train`."""
    bundles: Mapping[str, Sequence[Path]] = train_contestants.run(
        ABLATIONS,
        seeds,
        samples=samples,
        encoder=encoder,
        preferences=preferences,
        rankers=rankers,
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


if __name__ == "__main__":
    from jobs.cli import run_job

    run_job("ablate")

"""simulate: the built-in marketplace with known truth, as canonical tables."""

from pathlib import Path
from typing import Any

from prectr import progress
from prectr.artifacts import StageResult, run_stage
from prectr.marketplace import simulate
from prectr.marketplace.config import MarketplaceConfig


def run(*, out: Path, config: MarketplaceConfig, force: bool = False) -> StageResult:
    """Simulate a log and publish its tables at `out`, with `truth/` for evaluation."""

    def build(staging: Path) -> dict[str, Any]:
        with progress.track("simulate", unit="impressions") as bar:
            statistics = simulate(config, staging, on_day=lambda _, impressions: bar.advance(impressions))
        return {"simulated": True, "statistics": statistics}

    return run_stage("simulate", out, config=config, inputs={}, build=build, force=force)


if __name__ == "__main__":
    from jobs.cli import run_job

    run_job("simulate")

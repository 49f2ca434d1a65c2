"""Record of the stages that a driver ran, and the stages from labels to samples that both pipelines share."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs import build_samples, mine_preferences, score_relevance
from jobs.settings import Settings
from prectr.core.artifacts import StageResult
from prectr.features.config import SamplesConfig


class Stages:
    """Stages that were run.

    Attributes:
        done: (name, seconds, skipped) in order.
    """

    def __init__(self) -> None:
        self.done: list[tuple[str, float, bool]] = []

    def run(self, name: str, work: Callable[[], StageResult]) -> StageResult:
        """Run a stage."""
        clock = time.perf_counter()
        result = work()
        self.done.append((name, time.perf_counter() - clock, result.skipped))
        return result

    def time(self, name: str, work: Callable[[], Any]) -> None:
        """Run work that is no stage and is never up to date."""
        clock = time.perf_counter()
        work()
        self.done.append((name, time.perf_counter() - clock, False))


def make_samples(workspace: Path, settings: Settings, samples: SamplesConfig, stages: Stages) -> None:
    """Score relevance, mine preferences and build samples in a workspace that holds tables, labels and an encoder.

    Args:
        workspace: of the pipeline.
        settings: of the stages.
        samples: of `build-samples`; the daily pipeline has its own.
        stages: records the stages.

    Raises:
        UsageError, PrectrError: as the stages.
    """
    tables, labels, encoder = workspace / "tables", workspace / "labels", workspace / "encoder"
    relevance, preferences = workspace / "relevance", workspace / "preferences"
    stages.run(
        "score-relevance",
        lambda: score_relevance.run(
            tables=tables, encoder=encoder, labels=labels, out=relevance, config=settings.relevance
        ),
    )
    stages.run(
        "mine-preferences",
        lambda: mine_preferences.run(
            tables=tables,
            relevance=relevance,
            out=preferences,
            config=settings.preferences,
            ray_config=settings.ray,
        ),
    )
    stages.run(
        "build-samples",
        lambda: build_samples.run(
            tables=tables,
            relevance=relevance,
            preferences=preferences,
            out=workspace / "samples",
            config=samples,
            ray_config=settings.ray,
        ),
    )

"""From labels to samples: the three stages that the full and the daily pipeline share."""

from pathlib import Path

from jobs import build_samples, mine_preferences, score_relevance
from jobs.pipeline.stages import Stages
from jobs.settings import Settings
from prectr.features.config import SamplesConfig


def run(workspace: Path, settings: Settings, samples: SamplesConfig, stages: Stages) -> None:
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

"""The whole configuration: one section a stage. Light imports only, because every command reads it at start."""

from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, model_validator

from prectr.core.config import FrozenConfig
from prectr.core.ray_session import RayConfig
from prectr.data.config import ValidateConfig
from prectr.data.importers.config import ImportConfig
from prectr.data.marketplace.config import MarketplaceConfig
from prectr.experiments.config import ExperimentConfig, ReplayConfig
from prectr.features.config import SamplesConfig
from prectr.labelling.config import LabelConfig, SelectionConfig, TeacherConfig
from prectr.pipeline_config import PipelineConfig
from prectr.preferences.config import PreferencesConfig
from prectr.relevance.config import DistillConfig, ScoreConfig
from prectr.serving.config import ScoreLinesConfig, ServeConfig
from prectr.training.config import TrainConfig
from prectr.training.sweep_config import SweepConfig


class EvaluateConfig(FrozenConfig):
    """What `evaluate` reports."""

    cold_requests: int = Field(3, ge=0)
    """A user with at most so many earlier requests is cold."""
    active_requests: int = Field(10, ge=2)
    """A user with at least so many is active."""
    top: int = Field(10, ge=1)
    """How many first places of a list of candidates count."""
    resamples: int = Field(500, ge=20)
    """Of the test day's users, for intervals."""
    level: float = Field(0.95, gt=0, lt=1)
    """Of all intervals."""
    seed: int = 0
    """Of the resampling."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.active_requests <= self.cold_requests + 1:
            raise ValueError(
                f"active_requests {self.active_requests} leaves no room for warm users above {self.cold_requests}"
            )
        return self


class ReportConfig(FrozenConfig):
    """What `report` writes."""

    core_hour_price: float | None = Field(None, ge=0)
    """What an hour of one core costs you; null: cost is told in core hours only."""
    currency: str = "USD"


class Settings(FrozenConfig):
    """All sections. `prectr config show` prints them resolved."""

    presets: ClassVar[Path | None] = Path(__file__).parent / "presets"

    preset: str = "laptop"
    """A file of `prectr/presets/`: resources of all stages, on which a configuration file and `--set` build."""
    simulate: MarketplaceConfig = MarketplaceConfig()
    importing: ImportConfig = ImportConfig()
    validation: ValidateConfig = ValidateConfig()
    teacher: TeacherConfig = TeacherConfig()
    selection: SelectionConfig = SelectionConfig()
    label: LabelConfig = LabelConfig()
    distill: DistillConfig = DistillConfig()
    relevance: ScoreConfig = ScoreConfig()
    preferences: PreferencesConfig = PreferencesConfig()
    samples: SamplesConfig = SamplesConfig()
    train: TrainConfig = TrainConfig()
    sweep: SweepConfig = SweepConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    report: ReportConfig = ReportConfig()
    experiment: ExperimentConfig = ExperimentConfig()
    replay: ReplayConfig = ReplayConfig()
    serve: ServeConfig = ServeConfig()
    score: ScoreLinesConfig = ScoreLinesConfig()
    pipeline: PipelineConfig = PipelineConfig()
    ray: RayConfig = RayConfig()

"""The whole configuration: one section a stage. Light imports only, because every command reads it at start."""

from pathlib import Path
from typing import ClassVar

from jobs.pipeline.config import PipelineConfig
from prectr.core.config import FrozenConfig
from prectr.core.ray_session import RayConfig
from prectr.data.config import ValidateConfig
from prectr.data.importers.config import ImportConfig
from prectr.data.marketplace.config import MarketplaceConfig
from prectr.evaluation.config import EvaluateConfig
from prectr.evaluation.experiments.config import ExperimentConfig, ReplayConfig
from prectr.features.config import SamplesConfig
from prectr.labelling.config import LabelConfig, SelectionConfig, TeacherConfig
from prectr.preferences.config import PreferencesConfig
from prectr.relevance.config import DistillConfig, ScoreConfig
from prectr.reports.config import ReportConfig
from prectr.serving.config import ScoreLinesConfig, ServeConfig
from prectr.training.config import TrainConfig
from prectr.training.sweep_config import SweepConfig


class Settings(FrozenConfig):
    """All sections. `prectr config show` prints them resolved."""

    presets: ClassVar[Path | None] = Path(__file__).parent / "presets"

    preset: str = "laptop"
    """A file of `jobs/presets/`: resources of all stages, on which a configuration file and `--set` build."""
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

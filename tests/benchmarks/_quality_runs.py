"""Training runs of the quality benchmark, which share the log's rows in memory."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from _quality_world import World

from jobs.train import build_ranker_from
from prectr.contracts.model_config import ModelConfig
from prectr.features.load import Samples, split_days
from prectr.features.spec import FeatureSpec
from prectr.training.config import TrainConfig
from prectr.training.data import RankerData
from prectr.training.debias_weight import with_measured_weight
from prectr.training.ranker_loop import Run
from prectr.training.workers import Workers


class Loader:
    """The samples of one world, read once."""

    def __init__(self, world: World) -> None:
        self.samples = Samples.open(world.samples)
        self._world = world
        self._loaded: dict[tuple[Path, ...], RankerData] = {}

    @cached_property
    def split(self) -> tuple[RankerData, RankerData]:
        """Training rows and the validation day."""
        training, validation, _ = split_days(self.samples.days())
        return self.load(self.samples.files(training)), self.load(self.samples.files([validation]))

    def load(self, files: Sequence[Path]) -> RankerData:
        """Rows of some files, kept."""
        key = tuple(files)
        if key not in self._loaded:
            self._loaded[key] = RankerData(self.samples, files)
        return self._loaded[key]

    def run(self, config: TrainConfig, encoder: str, out: Path) -> "SharedRun":
        """A run that is ready to start; `encoder` as of `Variant`."""
        loop = {
            "config": config.model_dump(mode="json"),
            "samples": str(self._world.samples),
            "encoder": str(self._world.encoder),
            "out": str(out),
            "build_ranker": build_ranker_from if encoder == "distilled" else _build_undistilled,
            "finish": _nothing,
        }
        measured, _ = with_measured_weight(loop, Workers())
        return SharedRun(measured, self)


def _build_undistilled(config: ModelConfig, spec: FeatureSpec, encoder: Path) -> Any:
    """The ranker of `train`, but the encoder's weights are drawn anew, as if stage 1 had not been."""
    ranker = build_ranker_from(config, spec, encoder)
    model = ranker.encoder.model
    model.load_state_dict(type(model)(model.config).state_dict())
    ranker.relevance.initialise_from(ranker.encoder)
    return ranker


class SharedRun(Run):
    """The training loop, alone and without Ray, on rows that are in memory already."""

    def __init__(self, loop: dict[str, Any], loader: Loader) -> None:
        self._loader = loader
        super().__init__(loop, Workers())

    def load(self, files: Sequence[Path]) -> RankerData:
        """From the loader."""
        return self._loader.load(files)


def _nothing(ranker: Any, out: Path) -> None:
    """No bundle is needed."""

"""The artifacts that the quality benchmark trains on: one simulated log, taken through the pipeline once."""

from dataclasses import dataclass
from pathlib import Path

from jobs import (
    build_samples,
    distill,
    label,
    mine_preferences,
    score_relevance,
    select_pairs,
    simulate,
    train_teacher,
)
from prectr.configuration import load_config
from prectr.ray_session import ray_session
from prectr.settings import Settings

NO_DISTILLATION = "encoder-gold-only"


@dataclass(frozen=True)
class World:
    """Where the artifacts of one log lie."""

    folder: Path

    @property
    def tables(self) -> Path:
        """The simulated log."""
        return self.folder / "tables"

    @property
    def samples(self) -> Path:
        """What rankers are trained on."""
        return self.folder / "samples"

    @property
    def encoder(self) -> Path:
        """The distilled encoder."""
        return self.folder / "encoder"

    @property
    def preferences(self) -> Path:
        """What was mined."""
        return self.folder / "preferences"


def make_world(folder: Path, *settings: str) -> World:
    """Run every stage up to the samples; those that are up to date are skipped.

    Args:
        folder: workspace.
        settings: `section.key=value`, as of the command line.
    """
    world, config = World(folder), load_config(Settings, None, settings)
    folder.mkdir(parents=True, exist_ok=True)
    teacher, labels, selection, relevance = (folder / name for name in ("teacher", "labels", "selection", "relevance"))
    tables, encoder, preferences = world.tables, world.encoder, world.preferences
    simulate.run(out=tables, config=config.simulate)
    with ray_session(config.ray):
        train_teacher.run(tables=tables, out=teacher, config=config.teacher)
        select_pairs.run(tables=tables, out=selection, config=config.selection)
        label.run(tables=tables, teacher=teacher, out=labels, config=config.label, selection=selection, yes=True)
        distill.run(tables=tables, labels=labels, out=encoder, config=config.distill)
        score_relevance.run(tables=tables, encoder=encoder, labels=labels, out=relevance, config=config.relevance)
        mine_preferences.run(tables=tables, relevance=relevance, out=preferences, config=config.preferences)
        build_samples.run(
            tables=tables, relevance=relevance, preferences=preferences, out=world.samples, config=config.samples
        )
    return world

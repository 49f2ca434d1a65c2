"""The artifacts that the quality benchmark trains on: one simulated log, taken through the pipeline once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from _quality_levels import mix_true_levels

from jobs import build_samples, distill, label, mine_preferences, score_relevance, select_pairs, simulate, train_teacher
from jobs.settings import Settings
from prectr.core.config import load_config
from prectr.core.ray_session import ray_session

WAYS = {
    "": (),
    "-ids": tuple(f"samples.ids.{column}={{kind: vocabulary}}" for column in ("user_id", "query", "item_id")),
    "-query-ids": ("samples.query_buckets=4096",),
    "-no-look-up": ("relevance.look_up=false",),
}
"""Other ways to make samples of a log, and their settings."""
STUDENTS = {
    "-no-negatives": ("teacher.negatives=0", "selection.catalogue_share=0", "distill.negatives=0"),
    "-no-calibration": ("distill.calibrate=false",),
    "-no-match-head": ("distill.encoder.match_width=0",),
}
"""Other ways to make the student, each with the settings that it undoes."""
LEVELS = "-levels-"
"""Beginning of the ways that mix true levels in; their share follows."""


@dataclass(frozen=True)
class World:
    """Where the artifacts of one log lie."""

    folder: Path
    samples: Path
    """What rankers are trained on."""
    encoder: Path
    """The distilled encoder that rankers start from."""

    @property
    def tables(self) -> Path:
        """The simulated log."""
        return self.folder / "tables"

    @property
    def preferences(self) -> Path:
        """What was mined."""
        return self.folder / "preferences"


def world_of(folder: Path, way: str) -> World:
    """Where `make_world` puts a world."""
    return World(folder, folder / f"samples{way}", folder / f"encoder{way if way in STUDENTS else ''}")


def make_world(folder: Path, settings: Sequence[str], way: str = "", catalogue: Path | None = None) -> World:
    """Run every stage up to the samples; those that are up to date are skipped.

    Args:
        folder: workspace.
        settings: `section.key=value`, as of the command line.
        way: a key of `WAYS` or `STUDENTS`, or `LEVELS` and a share: samples made differently of the same log, beside
            the others.
        catalogue: validated tables of real text to simulate on.
    """
    config = load_config(Settings, None, [*settings, *WAYS.get(way, ()), *STUDENTS.get(way, ())])
    folder.mkdir(parents=True, exist_ok=True)
    world = world_of(folder, way)
    tables, encoder = world.tables, world.encoder
    taught = way if way == "-no-negatives" else ""
    teacher, labels, selection = (folder / f"{name}{taught}" for name in ("teacher", "labels", "selection"))
    share = float(way.removeprefix(LEVELS)) if way.startswith(LEVELS) else None
    made = "" if way in ("-ids", "-query-ids") else way  # ids change nothing before the samples
    relevance, preferences = folder / f"relevance{made}", folder / f"preferences{made}"
    simulate.run(out=tables, config=config.simulate, catalogue=catalogue)
    with ray_session(config.ray):
        train_teacher.run(tables=tables, out=teacher, config=config.teacher)
        select_pairs.run(tables=tables, out=selection, config=config.selection)
        label.run(tables=tables, teacher=teacher, out=labels, config=config.label, selection=selection, yes=True)
        distill.run(tables=tables, labels=labels, out=encoder, config=config.distill)
        scored = relevance if share is None else folder / "relevance"
        score_relevance.run(tables=tables, encoder=encoder, labels=labels, out=scored, config=config.relevance)
        if share is not None:
            mix_true_levels(tables, scored, relevance, share)
        mine_preferences.run(tables=tables, relevance=relevance, out=preferences, config=config.preferences)
        build_samples.run(
            tables=tables, relevance=relevance, preferences=preferences, out=world.samples, config=config.samples
        )
    return world

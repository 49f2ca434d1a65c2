"""The artifacts that the quality benchmark trains on: one simulated log, taken through the pipeline once."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

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
from prectr.artifacts import MANIFEST
from prectr.configuration import load_config
from prectr.ray_session import ray_session
from prectr.samples.load import Samples, split_days
from prectr.schema import LEVEL_COLUMNS
from prectr.settings import Settings

WAYS = {
    "": (),
    "-ids": tuple(f"samples.ids.{column}={{kind: vocabulary}}" for column in ("user_id", "query", "item_id")),
    "-no-look-up": ("relevance.look_up=false",),
}
"""Other ways to make samples of a log, and their settings."""

RELEVANT_ONLY = "-relevant-only"
KEPT_OF_WEAK = 20
"""`RELEVANT_ONLY`: of training rows below level 2 one in so many stays, as if the policy had shown them more rarely."""


@dataclass(frozen=True)
class World:
    """Where the artifacts of one log lie."""

    folder: Path
    samples: Path
    """What rankers are trained on."""

    @property
    def tables(self) -> Path:
        """The simulated log."""
        return self.folder / "tables"

    @property
    def encoder(self) -> Path:
        """The distilled encoder."""
        return self.folder / "encoder"


def make_world(folder: Path, settings: Sequence[str], way: str = "", catalogue: Path | None = None) -> World:
    """Run every stage up to the samples; those that are up to date are skipped.

    Args:
        folder: workspace.
        settings: `section.key=value`, as of the command line.
        way: a key of `WAYS`: samples made differently of the same log, beside the others.
        catalogue: validated tables of real text to simulate on.
    """
    config = load_config(Settings, None, [*settings, *WAYS[way]])
    folder.mkdir(parents=True, exist_ok=True)
    world = World(folder, folder / f"samples{way}")
    tables, encoder = world.tables, world.encoder
    teacher, labels, selection = (folder / name for name in ("teacher", "labels", "selection"))
    made = "" if way == "-ids" else way  # ids change nothing before the samples
    relevance, preferences = folder / f"relevance{made}", folder / f"preferences{made}"
    simulate.run(out=tables, config=config.simulate, catalogue=catalogue)
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


def make_relevant_only(world: World) -> World:
    """The samples of a log whose policy hardly ever shows weak items: what exposure debias is for.

    Only the rows to learn from are thinned, by the level that was looked up; what had been mined before stays.
    """
    thinned = World(world.folder, world.folder / f"samples{RELEVANT_ONLY}")
    if thinned.samples.exists():
        if (thinned.samples / MANIFEST).read_bytes() == (world.samples / MANIFEST).read_bytes():
            return thinned
        shutil.rmtree(thinned.samples)  # of samples that have been built anew since
    staging = thinned.samples.with_suffix(".staging")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(world.samples, staging)
    pairs = pl.scan_parquet(staging / "pairs.parquet")
    weak = pairs.filter(pl.concat_list(LEVEL_COLUMNS).list.arg_max() < 2).select("pair").collect()["pair"].implode()
    samples = Samples.open(staging)
    training, validation, _ = split_days(samples.days())
    for file in samples.files([*training, validation]):
        rows = pl.read_parquet(file, hive_partitioning=False)
        chosen = pl.concat_str("request_id", "item_id").hash(7) % KEPT_OF_WEAK == 0
        rows.filter(~pl.col("pair").is_in(weak) | chosen).write_parquet(file)
    staging.rename(thinned.samples)
    return thinned

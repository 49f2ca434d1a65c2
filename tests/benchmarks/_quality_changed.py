"""Samples of a log, copied and changed, to ask what would be if.

relevant-only   weak items were hardly ever shown: what exposure debias is for
told-queries    the true query tolerances instead of the mined ones: what mining could bring at most
told-all        those of users too
no-counts       without the numbers that count how much was mined, which grow from day to day
no-g-q          without g_q, the query's clicks by level
"""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from _quality_world import World

from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.mirror import MANIFEST
from prectr.data.marketplace import constants
from prectr.features.load import Samples, split_days
from prectr.preferences.fit import PreferenceModel
from prectr.preferences.tolerance import GRID, predictive

KEPT_OF_WEAK = 20
"""`relevant-only`: of training rows below level 2 one in so many stays, as if the policy had shown them more rarely."""
KNOWN_SD = 0.02
"""Deviation of a posterior that is told the truth."""


def make_changed(world: World, way: str) -> World:
    """The samples of a world, changed in one of `CHANGES`; up to date ones stay as they are."""
    changed = World(world.folder, world.folder / f"samples-{way}", world.encoder)
    if changed.samples.exists():
        if (changed.samples / MANIFEST).read_bytes() == (world.samples / MANIFEST).read_bytes():
            return changed
        shutil.rmtree(changed.samples)  # of samples that have been built anew since
    staging = changed.samples.with_suffix(".staging")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(world.samples, staging)
    CHANGES[way](staging, world)
    staging.rename(changed.samples)
    return changed


def _thin_weak(samples: Path, world: World) -> None:
    """Drop most rows to learn from whose level, as it was looked up, is weak; what had been mined before stays."""
    pairs = pl.scan_parquet(samples / "pairs.parquet")
    weak = pairs.filter(pl.concat_list(LEVEL_COLUMNS).list.arg_max() < 2).select("pair").collect()["pair"].implode()
    opened = Samples.open(samples)
    training, validation, _ = split_days(opened.days())
    for file in opened.files([*training, validation]):
        rows = pl.read_parquet(file, hive_partitioning=False)
        chosen = pl.concat_str("request_id", "item_id").hash(7) % KEPT_OF_WEAK == 0
        rows.filter(~pl.col("pair").is_in(weak) | chosen).write_parquet(file)


def _blank(samples: Path, world: World, *, columns: str) -> None:
    """Set the columns that match a pattern to 0 everywhere."""
    for file in sorted(samples.glob("*/*/*.parquet")):
        rows = pl.read_parquet(file, hive_partitioning=False)
        rows.with_columns(pl.col(columns) * 0).write_parquet(file)


def _tell(samples: Path, world: World, *, users: bool) -> None:
    """Write the true query tolerances, and the true user tolerances too, into every row and candidate.

    The columns keep their meaning; a posterior becomes a narrow one around the truth, and what is not told stays.
    """
    model = PreferenceModel.load(world.preferences / "parameters.json")
    truths = world.tables / "truth"
    true_users = pl.read_parquet(truths / "users.parquet", columns=["user_id", "t_u"])
    for folder, truth in (("rows", "impressions"), ("candidates", "candidates")):
        for file in sorted((samples / folder).glob("*/*.parquet")):
            told = pl.read_parquet(truths / truth / file.parent.name / "*.parquet", hive_partitioning=False).select(
                "request_id", "item_id", "threshold"
            )
            rows = pl.read_parquet(file, hive_partitioning=False)
            known = (
                rows.select("request_id", "item_id", "user_id")
                .join(told, on=["request_id", "item_id"], how="left", maintain_order="left")
                .join(true_users, on="user_id", how="left", maintain_order="left")
            )
            assert not known["threshold"].null_count(), f"{file}: rows that the truth lacks"
            rows.with_columns(**_columns(rows, known, model, users)).write_parquet(file)


def _columns(rows: pl.DataFrame, known: pl.DataFrame, model: PreferenceModel, users: bool) -> dict[str, pl.Series]:
    expected = rows["tolerance.above_user"].to_numpy() + rows["tolerance.user_tolerance"].to_numpy()
    threshold, of_user = known["threshold"].to_numpy(), known["t_u"].to_numpy()
    query = threshold - of_user
    user_mean = rows["tolerance.user_tolerance"].to_numpy().astype(np.float64)
    user_sd = rows["tolerance.user_tolerance_sd"].to_numpy().astype(np.float64)
    if users:  # on the scale of the mined ones: the prior's centre stands for a user without a part of their own
        user_mean, user_sd = of_user + model.user_centre, np.full(len(rows), KNOWN_SD)
    shift = query - constants.TOLERANCE_BASE
    summed = np.clip(user_mean + shift, GRID[0], GRID[-1])
    posterior = np.exp(-0.5 * ((GRID - user_mean[:, None]) / user_sd[:, None]) ** 2)
    posterior /= posterior.sum(1, keepdims=True)
    made = {
        "user_tolerance": user_mean,
        "user_tolerance_sd": user_sd,
        "query_tolerance": model.query_centre + shift,
        "query_tolerance_sd": np.full(len(rows), KNOWN_SD),
        "threshold": summed,
        "above_user": expected - user_mean,
        "above_query": expected - model.query_centre - shift,
        "above_threshold": expected - summed,
        "predictive_click": np.log(predictive(posterior, expected - shift, model.click)),
    }
    return {f"tolerance.{name}": pl.Series(values.astype(np.float32)) for name, values in made.items()}


CHANGES: dict[str, Callable[[Path, World], None]] = {
    "relevant-only": _thin_weak,
    "told-queries": partial(_tell, users=False),
    "told-all": partial(_tell, users=True),
    "no-counts": partial(_blank, columns=r"^(tolerance|query_preference)\..*(_count|_impressions|query_users)$"),
    "no-g-q": partial(_blank, columns=r"^query_preference\..*$"),
}

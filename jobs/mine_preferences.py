"""mine-preferences: which relevance levels people really click, per user, query and category, as of every day.

Ray Data's rows are files of the log. A task scans one file's needed columns and aggregates it partially; the small
partials are shuffled by key once and merged, vectorised, into running totals. Two passes: the first gives users' and
queries' tolerances as of each day, the second corrects each side for the other (MODEL.md 3a, one alternation).
"""

from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from prectr import progress
from prectr.arrow import from_arrow, to_arrow
from prectr.artifacts import StageResult, require_artifact, run_stage, write_json
from prectr.features.spec import activity_group
from prectr.preferences import aggregates, behaviours
from prectr.preferences.config import PreferencesConfig
from prectr.preferences.fit import PreferenceModel, fit_preference_model
from prectr.preferences.shown import ShownReader, categories_shown, with_examination, with_shifts
from prectr.preferences.tolerance import GRID_SIZE, moments, posterior
from prectr.ray_session import RayConfig, ray_session
from prectr.tables import Tables

REQUESTS = GRID_SIZE
"""Column of a user's sums that counts requests."""


def run(
    *,
    tables: Path,
    relevance: Path,
    out: Path,
    config: PreferencesConfig,
    ray_config: RayConfig | None = None,
    force: bool = False,
) -> StageResult:
    """Mine the log below `tables` with the relevance of `relevance` and publish the preferences at `out`.

    Writes `parameters.json`, running totals `totals/{user,query,category,total,item,pair}.parquet` and the cross-user
    behaviours `behaviours.parquet`, all of them readable as of any day of the log.
    """
    require_artifact(relevance, "score-relevance")
    source = Tables(tables)

    def build(staging: Path) -> dict[str, Any]:
        with ray_session(ray_config):
            return _mine(source, relevance, staging, config)

    inputs = {"tables": tables, "relevance": relevance}
    return run_stage("mine-preferences", out, config=config, inputs=inputs, build=build, force=force)


def _mine(source: Tables, relevance: Path, staging: Path, config: PreferencesConfig) -> dict[str, Any]:
    import ray

    days = source.days()
    files = [(day, file) for day in days for file in source.day_files("impressions", day)]
    reader = ShownReader.open(source.path, relevance)
    fit_days = set(days[: max(1, len(days) - config.holdout_days)])
    training = pl.concat([reader.read(file, day) for day, file in files if day in fit_days])
    category_of = categories_shown(training)
    model = fit_preference_model(training, category_of, config)
    progress.say(
        f"  click curve a={model.click.a:.3f} s={model.click.s:.3f} eps={model.click.eps:.4f}; "
        f"exam(pos) = pos^-{model.examination.exponent:.2f} from {model.examination.source}"
    )

    shared = ray.put(reader)
    tasks = [{"file": str(file), "date": day.isoformat(), "part": part} for part, (day, file) in enumerate(files)]
    first = _aggregate(tasks, shared, model, None, ("user", "query"), config)
    centres = _centres(first, model, category_of)
    totals = _aggregate(tasks, shared, model, centres if config.alternate else None, aggregates.KINDS, config)
    users = first.filter(pl.col("kind") == "user").select("key", "date", "sums")
    states = _behaviour_states(tasks, shared, users, config)

    (staging / "totals").mkdir()
    for kind in aggregates.KINDS:
        of_kind = totals.filter(pl.col("kind") == kind).drop("kind").sort("key", "date")
        of_kind.write_parquet(staging / "totals" / f"{kind}.parquet")
    centres.sort("kind", "key", "date").write_parquet(staging / "centres.parquet")
    states.sort("query", "date").write_parquet(staging / "behaviours.parquet")
    category_of.write_parquet(staging / "query_category.parquet")
    write_json(staging / "parameters.json", model.to_json())
    counts = {kind: totals.filter(pl.col("kind") == kind)["key"].n_unique() for kind in aggregates.KINDS}
    return {
        "rows": {**counts, "behaviour_states": states.height},
        "relevance_sources": relevance_coverage(relevance),
        "parameters": {"click": model.click.to_json(), "examination": vars(model.examination)},
    }


def _over_files(
    tasks: list[dict[str, Any]],
    scan: Callable[[pl.DataFrame, int], pl.DataFrame],
    merge: Callable[[pl.DataFrame], pl.DataFrame],
    shared: Any,
    keys: list[str],
    shards: int,
) -> pl.DataFrame:
    """`scan` each file (its rows, its number) in a task, shuffle the results by `keys` once, `merge` each block."""
    import ray

    def scan_files(batch: pa.Table) -> pa.Table:
        reader: ShownReader = ray.get(shared)
        scanned = [
            scan(reader.read(Path(task["file"]), date.fromisoformat(task["date"])), task["part"])
            for task in batch.to_pylist()
        ]
        return to_arrow(pl.concat(scanned))

    def merge_block(block: pa.Table) -> pa.Table:
        return to_arrow(merge(from_arrow(block)))

    dataset = (
        ray.data.from_items(tasks, override_num_blocks=len(tasks))
        .map_batches(scan_files, batch_size=1, batch_format="pyarrow", num_cpus=1)
        .repartition(shards, keys=keys)
        .map_batches(merge_block, batch_size=None, batch_format="pyarrow", num_cpus=1)
    )
    return pl.concat([from_arrow(block) for block in ray.get(dataset.to_arrow_refs()) if block.num_rows])


def _aggregate(
    tasks: list[dict[str, Any]],
    shared: Any,
    model: PreferenceModel,
    centres: pl.DataFrame | None,
    kinds: tuple[str, ...],
    config: PreferencesConfig,
) -> pl.DataFrame:
    """One pass over the log: running totals (kind, key, date, sums)."""

    def scan(rows: pl.DataFrame, part: int) -> pl.DataFrame:
        prepared = with_shifts(with_examination(rows, model), centres)
        return aggregates.partial_aggregates(prepared, part, model.click, kinds)

    return _over_files(tasks, scan, aggregates.merge_partials, shared, ["kind", "key"], config.shards)


def _centres(totals: pl.DataFrame, model: PreferenceModel, category_of: pl.DataFrame) -> pl.DataFrame:
    """How far each user and query lies from its prior's centre, as of every day: (kind, key, date, shift)."""
    made = []
    for kind, centre in (("user", model.user_centre), ("query", model.query_centre)):
        rows = totals.filter(pl.col("kind") == kind)
        prior = model.user_prior
        if kind == "query":
            named = rows.join(category_of, left_on="key", right_on="query", how="left", maintain_order="left")
            prior = model.query_priors(named["category"].to_list())
        mean, _ = moments(posterior(aggregates.matrix(rows["sums"])[:, :GRID_SIZE], prior))
        made.append(rows.select("kind", "key", "date", pl.Series("shift", mean - centre)))
    return pl.concat(made)


def _behaviour_states(
    tasks: list[dict[str, Any]], shared: Any, users: pl.DataFrame, config: PreferencesConfig
) -> pl.DataFrame:
    """S_q as of every day; a behaviour's user group is the activity of its user before that day."""

    def scan(rows: pl.DataFrame, part: int) -> pl.DataFrame:
        requests = aggregates.as_of(rows, users, "user_id", aggregates.USER_WIDTH)[:, REQUESTS]
        grouped = rows.with_columns(pl.Series("user_group", activity_group(requests)))
        return behaviours.day_behaviours(grouped, config.behaviours_per_query)

    merge = partial(behaviours.behaviour_states, limit=config.behaviours_per_query)
    return _over_files(tasks, scan, merge, shared, ["query"], config.shards)


def relevance_coverage(relevance: Path) -> dict[str, int]:
    """Pairs by the source of their relevance."""
    from prectr.relevance.pairs import read_pairs

    counts = read_pairs(relevance, ["source"]).group_by("source").len().sort("source")
    return dict(counts.iter_rows())


if __name__ == "__main__":
    from jobs.cli import run_job

    run_job("mine-preferences")

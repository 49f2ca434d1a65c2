"""build-samples: logged impressions with point-in-time features.

The log is cut into parts that fit a task. A task reads its part and joins the relevance, the prices, and the state of
query, item and pair on that morning. The rows are shuffled by user once. Each block, which holds the whole log of some
users, becomes sample rows by vectorised sorting and slicing, and writes the state of its users at the end of the log,
from which serving starts.
"""

import pickle
import shutil
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from jobs.options import MEMORY, Force, Out, Relevance, TablesIn, command
from jobs.options import Preferences as PreferencesIn
from prectr.core import progress
from prectr.core.artifacts import StageResult, require_artifact, run_stage
from prectr.core.errors import UsageError
from prectr.core.parquet import from_arrow, to_arrow, write_part
from prectr.core.ray_errors import user_errors
from prectr.core.ray_session import RayConfig, busy_session, task_budget
from prectr.core.text import stable_hash
from prectr.data.parts import plan_parts
from prectr.data.tables import Tables
from prectr.features.build import FEATURE_GROUPS, SampleContext, sample_rows
from prectr.features.config import SamplesConfig
from prectr.features.end_state import online_entries, user_states
from prectr.features.ids import fit_ids
from prectr.features.load import match_columns
from prectr.features.pair_table import pair_table
from prectr.features.read import Reading, read_rows
from prectr.features.spec import SPEC_FILE, FeatureSpec, fit_vocabularies, same_fitted
from prectr.features.store import write_store
from prectr.features.texts import split_texts
from prectr.preferences.mined import Preferences
from prectr.preferences.shown import ShownReader
from prectr.relevance.pairs import read_pairs

BLOCK_ROW_BYTES = 4_500
"""Bytes that a task needs for one shown row, measured: its features, and its share of its request's states."""
LEAST_BLOCKS = 4
"""Fewest blocks, so that a small log uses several machines. A constant, so that files do not depend on the cluster."""


@command("build-samples", shortcuts=MEMORY)
def run(
    *,
    tables: TablesIn,
    relevance: Relevance,
    preferences: PreferencesIn,
    out: Out,
    config: SamplesConfig,
    ray_config: RayConfig | None = None,
    force: Force = False,
) -> StageResult:
    """Build samples from a log, its relevance and its preferences, and publish them at `out`.

    Writes `rows/date=*/` (one row an impression), `candidates/date=*/` (one row an unexposed candidate of a held-back
    day), `pairs.parquet` (levels and match features of each distinct pair), `texts.parquet` (token ids of each
    distinct query and title), `feature_spec.json` and `online/` (the state from which serving starts).
    """
    scored = require_artifact(relevance, "score-relevance")
    require_artifact(preferences, "mine-preferences")
    source = Tables(tables)

    def build(staging: Path) -> dict[str, Any]:
        with busy_session(ray_config):
            facts = _build(source, relevance, preferences, staging, config, ray_config)
        return {**facts, "level_weights": scored["level_weights"]}

    inputs = {"tables": tables, "relevance": relevance, "preferences": preferences}
    if config.specification_from is not None:
        inputs["specification"] = config.specification_from / SPEC_FILE
    return run_stage("build-samples", out, config=config, inputs=inputs, build=build, force=force)


def _build(
    source: Tables,
    relevance: Path,
    preferences: Path,
    staging: Path,
    config: SamplesConfig,
    ray_config: RayConfig | None,
) -> dict[str, Any]:
    import ray.data

    mined = Preferences.open(preferences)
    days = source.days_with_rows("impressions")
    training = days[: max(1, len(days) - mined.config.holdout_days)]
    spec = _kept_specification(config, mined) or fit_vocabularies(
        source.items(),
        source.users(),
        profile_columns=config.profile_columns,
        price_buckets=config.price_buckets,
        query_buckets=config.query_buckets,
        user_behaviours=config.user_behaviours,
        query_behaviours=mined.config.behaviours_per_query,
        positions=config.max_positions,
        click=mined.model.click,
        ids={name: fit_ids(source, training, name, settings) for name, settings in config.ids.items()},
    )
    budget = task_budget(ray_config)
    parts = [(part, True) for part in plan_parts(source, days, budget)]
    if config.candidates and source.has("candidates"):
        parts += [(part, False) for part in plan_parts(source, days[len(training) :], budget, "candidates")]
    reading = Reading(mined, ray.put(ShownReader.open(source, relevance)))
    context = SampleContext(mined, spec, source, relevance)
    rows = sum(part.rows for part, _ in parts)
    blocks = -(-rows // budget.rows(BLOCK_ROW_BYTES))
    at_once = {"num_cpus": 1, "batch_size": None, "batch_format": "pyarrow"}

    tasks = [{"part": pickle.dumps(task)} for task in parts]
    blocks_written = (
        ray.data.from_items(tasks, override_num_blocks=len(tasks))
        .map_batches(
            partial(_read, shared=reading),
            **{**at_once, "batch_size": 1},
            compute=ray.data.TaskPoolStrategy(size=min(budget.at_once, len(parts))),
        )
        .repartition(max(blocks, min(LEAST_BLOCKS, len(parts))), keys=["user_id"])
        .map_batches(
            partial(_make, context=context, out=staging, online=config.online),
            **at_once,
            compute=ray.data.TaskPoolStrategy(size=budget.at_once),
        )
    )
    counts: dict[bool, dict[str, int]] = {True: {}, False: {}}
    with user_errors(), progress.track("build-samples", total=rows, unit="rows") as bar:
        for batch in blocks_written.iter_batches(batch_size=None, batch_format="pyarrow"):
            for day, exposed, row_count in zip(
                *(batch[name].to_pylist() for name in ("date", "exposed", "rows")), strict=True
            ):
                counts[exposed][day] = counts[exposed].get(day, 0) + row_count
                bar.advance(row_count)

    pairs = pair_table(read_pairs(relevance), source.items(), spec)
    if config.specification_from is None:
        features = _training_features(staging, training, config.scaler_rows)
        spec = spec.fit_scalers(features | {"match": match_columns(pairs)})
    spec.save(staging / SPEC_FILE)
    texts, pairs = split_texts(pairs, source.items().select("item_id", "title"))
    texts.write_parquet(staging / "texts.parquet")
    pairs.write_parquet(staging / "pairs.parquet")
    facts: dict[str, Any] = {
        "samples": sum(counts[True].values()),
        "candidates": sum(counts[False].values()),
        "pairs": pairs.height,
    }
    if config.online:
        users = (pl.read_parquet(file) for file in sorted((staging / ".users").glob("*.parquet")))
        facts |= write_store(staging / "online", online_entries(users, source, context))
        shutil.rmtree(staging / ".users")
    held_back = days[len(training) :]
    return {
        "rows": facts,
        "days": dict(sorted(counts[True].items())),
        "unknown": {str(day): _unknown_shares(staging, day, spec) for day in (training[-1], *held_back)},
    }


def _kept_specification(config: SamplesConfig, mined: Preferences) -> FeatureSpec | None:
    """The specification that the settings name, or None if a new one must be fitted.

    Raises:
        UsageError: the preferences have another click curve or another length of histories than it.
    """
    if config.specification_from is None:
        return None
    file = config.specification_from / SPEC_FILE
    spec = FeatureSpec.load(file)
    click = mined.model.click
    same_curve = same_fitted(spec.click_curve, (click.a, click.s, click.eps))
    if not same_curve or spec.query_behaviours != mined.config.behaviours_per_query:
        raise UsageError(
            f"{file}: belongs to preferences with other parameters than these; mine with "
            "preferences.parameters_from, or build samples without samples.specification_from."
        )
    return spec


def _unknown_shares(staging: Path, day: date, spec: FeatureSpec) -> dict[str, float]:
    """Share of a day's rows whose value is in no vocabulary, by categorical field."""
    rows = pl.scan_parquet(staging / "rows" / f"date={day}" / "*.parquet", hive_partitioning=False)
    shares = rows.select((pl.col(f"cat.{name}") == 0).mean().alias(name) for name in spec.categorical_fields).collect()
    return {name: round(share, 6) for name, share in shares.row(0, named=True).items()}


def _read(batch: pa.Table, shared: Reading) -> pa.Table:
    """The rows of parts; each part comes with a flag, true for impressions and false for candidates."""
    return to_arrow(
        pl.concat(read_rows(part, shared, exposed) for part, exposed in map(pickle.loads, batch["part"].to_pylist()))
    )


def _make(batch: pa.Table, context: SampleContext, out: Path, online: bool) -> pa.Table:
    """Write the samples of a block's users and their state at the end of the log; returns row counts by day.

    Files are named by the block's first user, so that a block that runs twice replaces its own files.
    """
    rows = from_arrow(batch)
    if rows.is_empty():
        return pa.table(
            {"date": pa.array([], pa.string()), "exposed": pa.array([], pa.bool_()), "rows": pa.array([], pa.int64())}
        )
    number = stable_hash(str(rows["user_id"].min())) % 10**12
    samples = sample_rows(rows, context)
    counts = []
    parts = samples.partition_by("date", "exposed", as_dict=True, include_key=False)
    for (day, exposed), part in parts.items():
        folder = "rows" if exposed else "candidates"
        write_part(out / folder / f"date={day}", number, part.sort("ts", "request_id", "position", "item_id"))
        counts.append({"date": str(day), "exposed": exposed, "rows": part.height})
    if online:
        shown = rows.filter("exposed")
        write_part(out / ".users", number, user_states(context.block(shown), context))
    return pa.Table.from_pylist(counts)


def _training_features(staging: Path, training: list[date], most: int) -> dict[str, dict[str, np.ndarray]]:
    """Feature columns of the days that scalers are fitted on, in a fixed order: blocks do not change rounding."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    files = [file for day in training for file in sorted((staging / "rows" / f"date={day}").glob("*.parquet"))]
    rows = pl.scan_parquet(files, hive_partitioning=False)
    every = -(-int(rows.select(pl.len()).collect().item()) // most)
    order = ["ts", "request_id", "position"]
    schema = pl.read_parquet_schema(files[0])
    for group in FEATURE_GROUPS:
        names = [name for name in schema if name.startswith(f"{group}.")]
        chosen = rows.filter(pl.col("request_id").hash(seed=0) % every == 0) if every > 1 else rows
        frame = chosen.select(*names, *order).collect(engine="streaming").sort(order)
        groups[group] = {name.removeprefix(f"{group}."): frame[name].to_numpy() for name in names}
    return groups

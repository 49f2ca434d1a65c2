"""build-samples: logged impressions with everything that was known before them, point in time.

Ray Data's rows are files of the log. They are read with relevance and price joined, shuffled by user once, and every
block (the whole log of some users) becomes sample rows by vectorised sorting and slicing. The same pass leaves the
state of users, queries, items and pairs at the end of the log, which serving starts from.
"""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from prectr.arrow import from_arrow, to_arrow
from prectr.artifacts import StageResult, require_artifact, run_stage
from prectr.features.spec import fit_vocabularies
from prectr.preferences.shown import ShownReader, with_examination, with_shifts
from prectr.ray_session import RayConfig, ray_session
from prectr.relevance.pairs import read_pairs
from prectr.samples.build import FEATURE_GROUPS, Preferences, SampleContext, sample_rows
from prectr.samples.config import SamplesConfig
from prectr.samples.load import match_columns
from prectr.samples.online import write_online_state
from prectr.samples.pair_table import pair_table
from prectr.tables import Tables


def run(
    *,
    tables: Path,
    relevance: Path,
    preferences: Path,
    out: Path,
    config: SamplesConfig,
    ray_config: RayConfig | None = None,
    force: bool = False,
) -> StageResult:
    """Build samples from a log, its relevance and its preferences, and publish them at `out`.

    Writes `rows/date=*/` (one row an impression), `pairs.parquet` (token ids, levels and match features of each
    distinct pair), `feature_spec.json` and `online/` (the state serving starts from).
    """
    require_artifact(relevance, "score-relevance")
    require_artifact(preferences, "mine-preferences")
    source = Tables(tables)

    def build(staging: Path) -> dict[str, Any]:
        with ray_session(ray_config):
            return _build(source, relevance, preferences, staging, config)

    inputs = {"tables": tables, "relevance": relevance, "preferences": preferences}
    return run_stage("build-samples", out, config=config, inputs=inputs, build=build, force=force)


def _build(source: Tables, relevance: Path, preferences: Path, staging: Path, config: SamplesConfig) -> dict[str, Any]:
    import ray

    mined = Preferences.open(preferences)
    spec = fit_vocabularies(
        source.items(),
        source.users(),
        profile_columns=config.profile_columns,
        price_buckets=config.price_buckets,
        query_buckets=config.query_buckets,
        user_behaviours=config.user_behaviours,
        query_behaviours=require_artifact(preferences, "mine-preferences")["config"]["behaviours_per_query"],
        positions=config.max_positions,
    )
    tables = source.path
    files = [
        {"file": str(file), "date": day.isoformat()}
        for day in source.days()
        for file in source.day_files("impressions", day)
    ]
    reader = ray.put(ShownReader.open(tables, relevance))
    centres = ray.put(mined.centres)

    def read(batch: pa.Table) -> pa.Table:
        shown: ShownReader = ray.get(reader)
        rows = [shown.read(Path(entry["file"]), date.fromisoformat(entry["date"])) for entry in batch.to_pylist()]
        prepared = with_shifts(with_examination(pl.concat(rows), mined.model), ray.get(centres))
        return to_arrow(prepared)

    def make(block: pa.Table) -> pa.Table:
        context = SampleContext.open(tables, relevance, preferences, spec)
        return to_arrow(sample_rows(from_arrow(block), context))

    by_user = (
        ray.data.from_items(files, override_num_blocks=len(files))
        .map_batches(read, batch_size=1, batch_format="pyarrow", num_cpus=1)
        .repartition(config.shards, keys=["user_id"])
        .materialize()
    )
    made = by_user.map_batches(make, batch_size=None, batch_format="pyarrow", num_cpus=1)
    counts = _write_days(made, staging / "rows")
    pairs = pair_table(read_pairs(relevance), source.items(), spec)
    fitted = spec.fit_scalers(_training_features(staging, source.days(), config) | {"match": match_columns(pairs)})
    fitted.save(staging / "feature_spec.json")
    pairs.write_parquet(staging / "pairs.parquet")
    context = SampleContext.open(tables, relevance, preferences, fitted)
    online = write_online_state(by_user, source, relevance, context, staging / "online")
    return {"rows": {"samples": sum(counts.values()), "pairs": pairs.height, **online}, "days": counts}


def _write_days(made: Any, out: Path) -> dict[str, int]:
    """Write sample rows as `date=*/part-*.parquet`, a block at a time, in time order inside a file."""
    counts: dict[str, int] = {}
    for number, batch in enumerate(made.iter_batches(batch_size=None, batch_format="pyarrow")):
        frame = from_arrow(batch)
        for (day,), rows in frame.partition_by("date", as_dict=True).items():
            folder = out / f"date={day}"
            folder.mkdir(parents=True, exist_ok=True)
            rows.drop("date").sort("ts", "request_id", "position").write_parquet(folder / f"part-{number:04d}.parquet")
            counts[str(day)] = counts.get(str(day), 0) + rows.height
    return dict(sorted(counts.items()))


def _training_features(staging: Path, days: list[date], config: SamplesConfig) -> dict[str, dict[str, np.ndarray]]:
    """Feature columns of the days that scalers are fitted on, in one order, so that blocks change no rounding."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    training = days[: max(1, len(days) - config.holdout_days)]
    files = [file for day in training for file in sorted((staging / "rows" / f"date={day}").glob("*.parquet"))]
    order = ["ts", "request_id", "position"]
    for group in FEATURE_GROUPS:
        names = [name for name in pl.read_parquet_schema(files[0]) if name.startswith(f"{group}.")]
        frame = pl.read_parquet(files, columns=[*names, *order], hive_partitioning=False).sort(order)
        groups[group] = {name.removeprefix(f"{group}."): frame[name].to_numpy() for name in names}
    return groups


if __name__ == "__main__":
    from jobs.cli import run_job

    run_job("build-samples")

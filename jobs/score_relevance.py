"""`score-relevance`: level probabilities for every distinct logged, candidate or judged pair, with their source.

The artifact's `pairs/part-*.parquet` are sorted by `pair`, the dense row number that later stages refer to.
"""

from pathlib import Path
from typing import Any

import polars as pl

from jobs.options import Encoder, Force, Labels, Out, TablesIn, command
from prectr.core import progress
from prectr.core.artifacts import StageResult, require_artifact, run_stage
from prectr.core.errors import PrectrError
from prectr.core.ray_session import RayConfig, busy_session, require_resources, resources
from prectr.data.tables import Tables
from prectr.relevance.config import ScoreConfig
from prectr.relevance.encoder_session import encoder_file


@command("score-relevance")
def run(
    *,
    tables: TablesIn,
    encoder: Encoder,
    labels: Labels,
    out: Out,
    config: ScoreConfig,
    ray_config: RayConfig | None = None,
    force: Force = False,
) -> StageResult:
    """Score the pairs of `tables` with `encoder`, and use known `labels`, into the relevance artifact `out`.

    Raises:
        UsageError: an artifact is missing, or int8 is asked for and the encoder has no such form.
    """
    require_artifact(encoder, "distill")
    if config.int8:
        encoder_file(encoder, int8=True)
    taught = require_artifact(labels, "label")

    log = Tables(tables)

    def build(staging: Path) -> dict[str, Any]:
        facts = _build(log, encoder, labels, staging, config, ray_config)
        return {**facts, "labels": {name: taught.get(name) for name in ("context", "calibration")}}

    inputs: dict[str, Path | str] = {"tables": tables, "encoder": encoder, "labels": labels}
    return run_stage("score-relevance", out, config=config, inputs=inputs, build=build, force=force)


def _build(
    tables: Tables, encoder: Path, labels: Path, staging: Path, config: ScoreConfig, ray_config: RayConfig | None
) -> dict[str, Any]:
    from prectr.relevance.batch_scoring import pairs_to_score, score_pairs
    from prectr.relevance.encoder_session import RelevanceEncoder
    from prectr.relevance.sources import level_weights, order_of_sources

    order: dict[str, Any] = {"first": config.first if config.look_up else "encoder"}
    if order["first"] == "measured":
        session = RelevanceEncoder(encoder, config.threads, config.batch_size, config.int8)
        order = order_of_sources(tables, labels, lambda queries, titles: session.score(queries, titles)[0])
        progress.say(f"score-relevance: {_told(order)}")
    pairs = pairs_to_score(tables, labels if order["first"] == "teacher" else None, config)
    if pairs.is_empty():
        raise PrectrError(f"{tables}: no pair of query and known item to score; check impressions and items.")
    folder = staging / "pairs"
    folder.mkdir()
    written, sources = 0, {"judgment": 0, "teacher": 0, "encoder": 0}
    with busy_session(ray_config), progress.track("score-relevance", total=len(pairs), unit="pairs") as bar:
        require_resources("relevance", resources(config.cpus, memory_gib=config.memory_gib))
        for batch in score_pairs(pairs, encoder, config):
            scored = pl.DataFrame(batch).sort("pair")
            scored.write_parquet(folder / f"part-{scored['pair'][0]:010d}.parquet")
            written += len(scored)
            for source, count in scored.group_by("source").len().iter_rows():
                sources[source] += count
            bar.advance(len(scored))
    if written != len(pairs):
        raise PrectrError(f"score-relevance: {written:,} of {len(pairs):,} pairs came back; run it again with -v.")
    return {
        "rows": {"pairs": written, **sources},
        "coverage": {source: round(count / written, 4) for source, count in sources.items()},
        "order": order,
        "level_weights": level_weights(order),
    }


def _told(order: dict[str, Any]) -> str:
    """What decided whether the teacher or the encoder has priority."""
    if not order["pairs"]:
        return "the teacher has priority over the encoder, because it labelled too few judged pairs to compare them"
    figures = " and ".join(f"{order[name]['nll']:.4f} ({name})" for name in ("teacher", "encoder"))
    return f"the {order['first']} has priority: {figures} nats a grade on {order['pairs']:,} held-back judged pairs"

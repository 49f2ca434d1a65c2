"""What each stage reads, writes, shuffles and computes: a load times measured unit costs."""

import math
from dataclasses import dataclass

from jobs.sizing.costs import UnitCosts
from jobs.sizing.load import Load, Machine, StageName
from prectr.core.ray_session import bytes_of_task
from prectr.data.parts import ROW_BYTES, TEXT_COPIES

SAMPLE_BLOCK_BYTES = 4_500
"""What a task of `build-samples` holds a row (`jobs/build_samples.py`; a test holds both equal)."""
MEMORY_SHARE = 3
"""Tasks of mining and sampling get `--memory` of a machine's memory divided by this."""
HOUR = 3600.0


@dataclass(frozen=True)
class StageNeed:
    """A first run over the whole history.

    Attributes:
        stage: the command.
        input_bytes: read from storage, each byte once.
        output_bytes: written, as compressed Parquet or LMDB.
        shuffle_bytes: that go from the machine where they are made to the one that needs them.
        core_hours: of work that any number of machines can share.
        serial_hours: of work that one process does, while all others wait.
        deadline_hours: that the stage may take.
        machines: that meet the deadline; None: no number does, the serial part takes too long.
        note: what is to be known of the figures.
    """

    stage: StageName
    input_bytes: float
    output_bytes: float
    shuffle_bytes: float
    core_hours: float
    serial_hours: float
    deadline_hours: float
    machines: int | None
    note: str = ""


def stage_needs(load: Load, machine: Machine, costs: UnitCosts) -> list[StageNeed]:
    """All stages, in the order in which they run."""
    of_task = bytes_of_task(machine.bytes / MEMORY_SHARE, machine.cores)
    tables = load.impressions * costs["tables_bytes_per_impression"]
    relevance = load.pairs * costs["relevance_bytes_per_pair"]
    partials = load.impressions * costs["partial_bytes_per_impression"]
    before = load.impressions * costs["before_bytes_per_impression"]
    snapshot = load.impressions * costs["snapshot_bytes_per_impression"]
    samples = load.impressions * costs["samples_bytes_per_impression"] + load.pairs * costs["samples_bytes_per_pair"]
    state = state_bytes(load, costs)
    hashed = tables * costs["hash_seconds_per_byte"]
    parts_of_day = math.ceil(
        load.impressions_per_day * (ROW_BYTES + TEXT_COPIES * costs["tables_bytes_per_impression"]) / of_task
    )
    blocks = math.ceil(load.impressions * SAMPLE_BLOCK_BYTES / of_task)
    looked_up = (
        blocks
        * (
            2 * load.pairs * costs["lookup_core_seconds_per_pair"]
            + load.queries_a_day * load.days * costs["lookup_core_seconds_per_query_day"]
        )
        + load.days * parts_of_day * load.pairs_a_day * costs["lookup_core_seconds_per_pair_of_day"]
    )
    sampled = load.impressions * costs["samples_core_seconds_per_impression"]

    def need(
        stage: StageName, read: float, written: float, shuffled: float, shared: float, serial: float, note: str = ""
    ) -> StageNeed:
        left = load.deadline(stage) - serial / HOUR
        machines = max(1, math.ceil(shared / HOUR / left / machine.cores)) if left > 0 else None
        return StageNeed(
            stage, read, written, shuffled, shared / HOUR, serial / HOUR, load.deadline(stage), machines, note
        )

    return [
        need(
            "label",
            tables,
            load.labels * costs["ledger_bytes_per_label"],
            0.0,
            0.0,
            0.0,
            "the teacher's work is in the GPU-hours below",
        ),
        need(
            "distill",
            load.labels * costs["ledger_bytes_per_label"],
            0.0,
            0.0,
            0.0,
            load.labels * load.distill_epochs * costs["distill_core_seconds_per_pair"],
            "one worker; distill.max_seconds (600) ends it after an epoch, so it would not see all labels",
        ),
        need(
            "score-relevance",
            tables,
            relevance,
            2 * relevance,
            load.pairs * costs["score_core_seconds_per_pair"],
            hashed,
            "pairs go from the driver to the actors and back, and the driver writes them",
        ),
        need(
            "mine-preferences",
            2 * tables + relevance,
            partials + before + snapshot,
            partials,
            load.impressions * costs["mine_core_seconds_per_impression"],
            hashed,
            "two passes over the log",
        ),
        need(
            "build-samples",
            tables + before + relevance,
            samples + state,
            load.impressions * costs["samples_shuffle_bytes_per_impression"],
            sampled + looked_up,
            hashed + state_content(load, costs) * costs["state_seconds_per_content_byte"],
            f"{looked_up / (sampled + looked_up):.1%} of the core-hours are look-ups: each of {blocks:,} user blocks "
            f"scans all pairs and all query days, each of {parts_of_day:,} parts of a day all pairs of the day",
        ),
        need(
            "train",
            load.train_epochs * samples,
            0.0,
            0.0,
            load.impressions * load.train_epochs * costs["train_core_seconds_per_row"],
            0.0,
            "workers are taken to add up without loss, which was not measured beyond one machine",
        ),
    ]


def state_bytes(load: Load, costs: UnitCosts) -> float:
    """Bytes of the online state as its file holds it; of users it holds every pair that they were ever shown."""
    return state_content(load, costs) * costs["state_file_per_content_byte"]


def state_content(load: Load, costs: UnitCosts) -> float:
    """Bytes of its keys and values."""
    return (
        load.impressions * costs["state_user_bytes_per_impression"]
        + load.queries * costs["state_bytes_per_query"]
        + load.items * costs["state_bytes_per_item"]
        + load.pairs * costs["state_bytes_per_pair"]
    )

"""What one process or one machine has to hold whole, and at what scale it no longer fits: read from the code.

A structure that grows with the log but lies in one place is a bottleneck that no further machine removes.
"""

import math
from dataclasses import dataclass
from typing import Literal

from jobs.sizing.costs import UnitCosts
from jobs.sizing.load import Load, Machine
from jobs.sizing.stages import state_bytes, state_content

MOST_PAIRS = 2**31 - 1
"""The number of a pair is an int32."""
MOST_FRAME_ROWS = 2**32 - 1
"""A polars frame numbers its rows by unsigned 32 bits."""
Holder = Literal["driver", "each machine", "each process", "each task", "each worker"]


@dataclass(frozen=True)
class Structure:
    """Something that is held whole.

    Attributes:
        name: what it is.
        stage: the command that holds it.
        where: file and function.
        holder: who holds it. A machine runs a process and a task a core, and one (training) worker.
        count: how many units it has.
        unit: what they are.
        bytes: in one place.
        limit: of `bytes`, or of `count` where `counted`.
        counted: the limit is a number of units, whatever the memory.
    """

    name: str
    stage: str
    where: str
    holder: Holder
    count: float
    unit: str
    bytes: float
    limit: float
    counted: bool = False

    @property
    def breaks_at(self) -> float:
        """Multiple of the load at which it reaches its limit, all counts growing alike."""
        used = self.count if self.counted else self.bytes
        return self.limit / used if used else math.inf

    @property
    def breaks_at_count(self) -> float:
        """How many units that is."""
        return self.count * self.breaks_at

    @property
    def bytes_per_unit(self) -> float:
        """What one takes, in one place."""
        return self.bytes / self.count


def structures(load: Load, machine: Machine, costs: UnitCosts) -> list[Structure]:
    """All that were found, the first to break first."""
    whole, of_core = machine.bytes, machine.bytes / machine.cores
    content = state_content(load, costs)

    def held(
        name: str, stage: str, where: str, holder: Holder, count: float, unit: str, size: float | str
    ) -> Structure:
        total = count * costs[size] if isinstance(size, str) else size
        limit = of_core if holder in ("each process", "each task") else whole
        return Structure(name, stage, where, holder, count, unit, total, limit)

    def counted(name: str, stage: str, where: str, count: float, unit: str, limit: int) -> Structure:
        return Structure(name, stage, where, "driver", count, unit, 0.0, limit, counted=True)

    found = [
        held(
            "pairs to choose questions from",
            "label",
            "platform/prectr/labelling/selection.py: distinct_pairs, choose_pairs",
            "driver",
            load.pairs,
            "pairs",
            "select_bytes_per_pair",
        ),
        held(
            "pairs with titles and labels",
            "score-relevance",
            "platform/prectr/relevance/batch_scoring.py: pairs_to_score, score_pairs",
            "driver",
            load.pairs,
            "pairs",
            "layout_bytes_per_pair",
        ),
        counted(
            "number of a pair (int32)",
            "score-relevance",
            "platform/prectr/relevance/batch_scoring.py: pairs_to_score",
            load.pairs,
            "pairs",
            MOST_PAIRS,
        ),
        held(
            "questions, keys and answers",
            "label",
            "jobs/label.py: with_keys, _publish; platform/prectr/labelling/ledger.py",
            "driver",
            load.labels,
            "questions",
            "label_driver_bytes_per_question",
        ),
        held(
            "labelled pairs and tokens",
            "distill",
            "platform/prectr/relevance/distillation.py, jobs/distill.py: _write_training_data",
            "driver",
            load.labels,
            "labels",
            "distill_driver_bytes_per_pair",
        ),
        held(
            "pair index, being built",
            "mine-preferences",
            "platform/prectr/preferences/pair_index.py: PairIndex.open",
            "driver",
            load.pairs,
            "pairs",
            "index_building_bytes_per_pair",
        ),
        held(
            "pair index, in object stores",
            "mine-preferences",
            "platform/prectr/preferences/pair_index.py: PairIndex",
            "each machine",
            load.pairs,
            "pairs",
            "index_bytes_per_pair",
        ),
        held(
            "sums of all queries",
            "mine-preferences",
            "platform/prectr/preferences/snapshots.py: fitted_prior_clicks",
            "driver",
            load.queries,
            "queries",
            "prior_bytes_per_query",
        ),
        held(
            "category of every query",
            "build-samples",
            "platform/prectr/preferences/mined.py: Preferences.query_category",
            "each process",
            load.queries,
            "queries",
            "category_bytes_per_query",
        ),
        held(
            "pairs of a day",
            "build-samples",
            "platform/prectr/features/read.py: _known_of_pairs",
            "each task",
            load.pairs_a_day,
            "pairs/day",
            "day_pairs_bytes_per_pair",
        ),
        held(
            "users of a day",
            "mine-preferences",
            "platform/prectr/preferences/passes.py: day_centres",
            "each task",
            load.users_a_day,
            "users/day",
            "day_users_bytes_per_user",
        ),
        held(
            "table of pairs and texts",
            "build-samples",
            "jobs/build_samples.py: _build; platform/prectr/features/pair_table.py, texts.py",
            "driver",
            load.pairs,
            "pairs",
            "samples_driver_bytes_per_pair",
        ),
        held(
            "online state, being written",
            "build-samples",
            "platform/prectr/features/end_state.py: online_entries; platform/prectr/features/store.py: write_keys",
            "driver",
            load.impressions,
            "rows",
            content * costs["state_writer_bytes_per_content_byte"],
        ),
        held(
            "online state, being published",
            "publish",
            "platform/prectr/serving/publish.py: _to_directory; platform/prectr/features/store.py: write_keys",
            "driver",
            load.impressions,
            "rows",
            content * costs["publish_bytes_per_content_byte"],
        ),
        held(
            "all pairs and tokens",
            "train",
            "platform/prectr/features/load.py: Samples.open",
            "each worker",
            load.pairs,
            "pairs",
            "train_bytes_per_pair",
        ),
        held(
            "rows of the validation day",
            "train",
            "platform/prectr/training/ranker_loop.py: Run.__init__",
            "each worker",
            load.impressions_per_day,
            "rows/day",
            "train_bytes_per_row",
        ),
        held(
            "rows of the test day",
            "evaluate",
            "platform/prectr/evaluation/day.py: TestDay",
            "driver",
            load.impressions_per_day,
            "rows/day",
            "train_bytes_per_row",
        ),
        held(
            "queries of all training rows",
            "evaluate",
            "platform/prectr/evaluation/day.py: TestDay.of",
            "driver",
            load.impressions,
            "rows",
            "evaluate_bytes_per_training_row",
        ),
        counted(
            "rows of one frame (uint32)",
            "evaluate",
            "platform/prectr/evaluation/day.py: TestDay.of",
            load.impressions,
            "rows",
            MOST_FRAME_ROWS,
        ),
        held(
            "online state, mapped",
            "serve",
            "platform/prectr/features/store.py: OnlineStore",
            "each machine",
            load.impressions,
            "rows",
            state_bytes(load, costs),
        ),
    ]
    return sorted(found, key=lambda one: one.breaks_at)

"""The answer: stages, labelling, serving, and the first bottleneck."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from jobs.sizing.costs import UnitCosts
from jobs.sizing.load import Load, Machine
from jobs.sizing.stages import HOUR, StageNeed, stage_needs, state_bytes
from jobs.sizing.structures import Structure, structures
from prectr.core.errors import UsageError

MEASURED_CANDIDATES = 100
"""Of a request when a replica's rate was measured."""


@dataclass(frozen=True)
class Labelling:
    """What the teacher reads.

    Attributes:
        tokens: of all prompts.
        shared_tokens: of these, the beginning that all prompts share; an engine's prefix cache may answer them.
        gpu_hours: at the assumed rate, all tokens read; None where no rate was given.
        gpus: that meet the deadline; None likewise.
    """

    tokens: float
    shared_tokens: float
    gpu_hours: float | None
    gpus: int | None


@dataclass(frozen=True)
class Serving:
    """Replicas of one scoring thread.

    Attributes:
        replicas: of a core each, every pair of every request encoded.
        replica_bytes: memory of all of them.
        state_bytes: that every machine maps from its disk.
        machines: that hold the replicas, by cores and by memory without the state.
    """

    replicas: int
    replica_bytes: float
    state_bytes: float
    machines: int


@dataclass(frozen=True)
class Answer:
    """Everything; `structures` begins with the first bottleneck."""

    load: Load
    machine: Machine
    stages: list[StageNeed]
    labelling: Labelling
    serving: Serving
    structures: list[Structure]
    costs: UnitCosts

    @property
    def first_bottleneck(self) -> Structure:
        """What reaches its limit first as the load grows."""
        return self.structures[0]

    def memory(self, stage: str) -> float:
        """Bytes of the largest thing that a stage holds in one place."""
        return max((one.bytes for one in self.structures if one.stage == stage), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        told = [
            asdict(one)
            | {
                "breaks_at": one.breaks_at,
                "breaks_at_count": one.breaks_at_count,
                "bytes_per_unit": one.bytes_per_unit,
            }
            for one in self.structures
        ]
        return {
            "load": self.load.model_dump(mode="json")
            | {"pairs": self.load.pairs, "impressions": self.load.impressions},
            "machine": self.machine.model_dump(),
            "stages": [asdict(one) | {"memory_bytes": self.memory(one.stage)} for one in self.stages],
            "labelling": asdict(self.labelling),
            "serving": asdict(self.serving),
            "first_bottleneck": told[0],
            "structures": told,
            "unit_costs": self.costs.model_dump(mode="json"),
        }


def make_load(**given: Any) -> Load:
    """A load of what was given; what is None keeps its default and is named as assumed.

    Raises:
        UsageError: a number is out of its range.
    """
    known = {name: value for name, value in given.items() if value is not None}
    assumed = tuple(name for name, value in given.items() if value is None and name in ASSUMED)
    try:
        return Load(**known, assumed=assumed)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]).replace("_", "-")
        raise UsageError(f"plan: {'--' + name + ': ' if name else ''}{first['msg']}.") from None


ASSUMED = ("users", "items", "pairs_per_query", "repeats", "shown")
"""What the answer calls assumed unless it was given."""


def calculate(load: Load, machine: Machine, costs: UnitCosts) -> Answer:
    """Work the answer out."""
    return Answer(
        load,
        machine,
        stage_needs(load, machine, costs),
        _labelling(load, costs),
        _serving(load, machine, costs),
        structures(load, machine, costs),
        costs,
    )


def _labelling(load: Load, costs: UnitCosts) -> Labelling:
    tokens = load.labels * costs["prompt_tokens_per_question"]
    hours = None if load.gpu_tokens_per_second is None else tokens / load.gpu_tokens_per_second / HOUR
    return Labelling(
        tokens,
        load.labels * costs["prompt_shared_tokens"],
        hours,
        None if hours is None else max(1, math.ceil(hours / load.deadline("label"))),
    )


def _serving(load: Load, machine: Machine, costs: UnitCosts) -> Serving:
    of_replica = costs["replica_requests_per_second"] * MEASURED_CANDIDATES * load.utilisation
    replicas = math.ceil(load.requests_per_second * load.candidates / of_replica)
    memory = replicas * costs["replica_bytes"]
    machines = max(math.ceil(replicas / machine.cores), math.ceil(memory / machine.bytes))
    return Serving(replicas, memory, state_bytes(load, costs), machines)

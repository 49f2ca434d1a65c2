"""What is asked of the platform, and on which machines: given numbers, and assumptions that are told as such."""

import re
from collections.abc import Mapping
from typing import Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from prectr.core.config import FrozenConfig
from prectr.core.errors import UsageError, quoted

StageName = Literal["label", "distill", "score-relevance", "mine-preferences", "build-samples", "train"]
STAGES: tuple[StageName, ...] = get_args(StageName)
_COUNT = re.compile(r"([0-9]*\.?[0-9]+)\s*([kKMBGT]?)")
_TIMES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}
_SHAPE = re.compile(r"([0-9]+)x([0-9]*\.?[0-9]+)")


class Machine(FrozenConfig):
    """A machine; all are alike, the driver's too."""

    cores: int = Field(ge=1)
    gib: float = Field(gt=0)

    @property
    def bytes(self) -> float:
        """Its memory."""
        return self.gib * 2**30

    @classmethod
    def parse(cls, text: str) -> "Machine":
        """A shape such as `64x512`.

        Raises:
            UsageError: the text is none.
        """
        found = _SHAPE.fullmatch(text.strip())
        if not found or not int(found.group(1)) or not float(found.group(2)):
            raise UsageError(f"--machine {quoted(text)}: not a machine; give CORESxGIB, such as 64x512.")
        return cls(cores=int(found.group(1)), gib=float(found.group(2)))


class Load(FrozenConfig):
    """How much of everything. `assumed` names what nobody gave; the answer repeats it."""

    impressions_per_day: int = Field(ge=1)
    days: int = Field(30, ge=1)
    """Of history, all of it read by a first run."""
    queries: int = Field(ge=1)
    """Distinct ones in the history."""
    labels: int = Field(ge=1)
    """Questions that the teacher answers once."""
    requests_per_second: float = Field(gt=0)
    """Calls of POST /v1/score at the peak."""
    candidates: int = Field(100, ge=1)
    """Of a request."""
    users: int = Field(200_000_000, ge=1)
    items: int = Field(50_000_000, ge=1)
    pairs_per_query: float = Field(20.0, gt=0)
    """Distinct items shown under a query in the history, on average."""
    repeats: float = Field(4.0, ge=1)
    """How often a pair that a day shows is shown on that day, and how many requests a user of the day sends."""
    shown: int = Field(10, ge=1)
    """Impressions of a request."""
    gpu_tokens_per_second: float | None = Field(None, gt=0)
    """Prompt tokens that one GPU reads with the teacher that is used. Never measured here."""
    hours: float = Field(6.0, gt=0)
    """That a stage may take."""
    hours_of: Mapping[StageName, float] = {}
    """The same for single stages."""
    train_epochs: int = Field(2, ge=1)
    distill_epochs: int = Field(6, ge=1)
    utilisation: float = Field(0.5, gt=0, le=1)
    """Share of a replica's saturating load that it gets; latency was measured at half."""
    assumed: tuple[str, ...] = ()

    @field_validator("hours_of")
    @classmethod
    def _check_hours(cls, hours_of: Mapping[StageName, float]) -> Mapping[StageName, float]:
        for stage, hours in hours_of.items():
            if not hours > 0:
                raise ValueError(f"{stage}: hours must be above 0, got {hours:g}")
        return hours_of

    @model_validator(mode="after")
    def _check_queries(self) -> Self:
        if self.queries > self.impressions:
            raise ValueError(f"{self.queries:,} queries cannot all be shown in {self.impressions:,} impressions")
        return self

    @property
    def impressions(self) -> int:
        """Of all days."""
        return self.impressions_per_day * self.days

    @property
    def pairs(self) -> float:
        """Distinct pairs of query and item; no more than impressions."""
        return min(self.queries * self.pairs_per_query, self.impressions)

    @property
    def pairs_a_day(self) -> float:
        """Distinct pairs that a day shows."""
        return min(self.pairs, self.impressions_per_day / self.repeats)

    @property
    def users_a_day(self) -> float:
        """Distinct users of a day."""
        return min(self.users, self.impressions_per_day / self.shown / self.repeats)

    @property
    def queries_a_day(self) -> float:
        """Distinct queries of a day."""
        return min(self.queries, self.impressions_per_day / self.shown)

    def deadline(self, stage: StageName) -> float:
        """Hours that a stage may take."""
        return self.hours_of.get(stage, self.hours)


def parse_count(text: str, option: str) -> float:
    """A count such as `100M` or `1.5B`.

    Raises:
        UsageError: the text is no number, or not above 0.
    """
    found = _COUNT.fullmatch(text.strip())
    value = float(found.group(1)) * _TIMES[found.group(2)] if found else 0.0
    if value <= 0:
        raise UsageError(f"{option} {quoted(text)}: give a number above 0, such as 1000000, 10k, 100M or 1B.")
    return value

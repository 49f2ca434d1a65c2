"""Configuration of experiments. Pydantic only: every command reads it at start."""

from datetime import datetime

from pydantic import Field, field_validator

from prectr.core.config import FrozenConfig
from prectr.evaluation.experiments.measures import MEASURES

PRODUCTION = "production"
"""The name of the marketplace's logging policy where a ranker is asked for."""


class ExperimentConfig(FrozenConfig):
    """How `analyze-experiment` reads and judges an experiment."""

    control: str = "control"
    """The variant that the others are held against."""
    shares: dict[str, float] = {}
    """Intended share of the users of each variant, in any unit; empty: all alike."""
    start: datetime | None = None
    """When it began (with a zone; UTC without one). None: the earliest assignment, else the first exposure."""
    measures: tuple[str, ...] | None = None
    """Which measures; None: all that the columns allow."""
    level: float = Field(0.95, gt=0, lt=1)
    """Of all intervals."""
    sample_ratio_p: float = Field(0.001, gt=0, lt=1)
    """Below this probability of the observed shares of users no verdict is given."""
    max_crossed_share: float = Field(0.01, ge=0, le=1)
    """Share of the users that may have been in several variants and are left out; above it the command fails."""
    max_unpriced_share: float = Field(0.05, ge=0, le=1)
    """Share of the purchases that may have no price and count as 0 in GMV; above it the command fails."""
    cuped: bool | None = None
    """Whether to use the time before the experiment; None: where there is one."""
    sequential_users: int = Field(5000, ge=2)
    """Number of users at which the always-valid bounds are tightest; fix it before the experiment."""
    resamples: int = Field(1000, ge=100)
    """Of users, for bootstrap intervals."""
    resplits: int = Field(0, ge=0)
    """Random re-assignments of the same users, for the false-positive rate of these tests on these users; 0: none."""
    seed: int = Field(0, ge=0)
    """Of resamples and re-assignments."""

    @field_validator("measures")
    @classmethod
    def _known(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        known = [measure.name for measure in MEASURES]
        unknown = [name for name in names or () if name not in known]
        if unknown or names == ():
            raise ValueError(f"name some of {', '.join(known)}")
        return names

    @field_validator("shares")
    @classmethod
    def _positive(cls, shares: dict[str, float]) -> dict[str, float]:
        if not all(0 < share < float("inf") for share in shares.values()):
            raise ValueError("every share must be above 0; leave out a variant that nobody was meant to see")
        return shares


class ReplayConfig(FrozenConfig):
    """What `simulate-experiment` plays."""

    days: int = Field(7, ge=1)
    """Days after the log's last one."""
    requests: int | None = Field(None, ge=1)
    """Requests a day; None: as many as a day of the log has."""
    treatment_share: float = Field(0.5, gt=0, lt=1)
    """Share of the users that see the treatment."""
    seed: int = Field(0, ge=0)
    """Of assignment, clicks and purchases; the requests are the marketplace's own."""

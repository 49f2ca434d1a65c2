"""Settings of experiments. This module imports pydantic only, because every command loads it at start."""

from datetime import datetime

from pydantic import Field, field_validator

from prectr.core.config import FrozenConfig
from prectr.evaluation.experiments.measures import MEASURES

PRODUCTION = "production"
"""Name that stands for the marketplace's logging policy in place of a ranker."""


class ExperimentConfig(FrozenConfig):
    """Input, intervals and limits of `analyze-experiment`."""

    control: str = "control"
    """Name of the control variant. All other variants are compared with it."""
    shares: dict[str, float] = {}
    """Intended share of users of each variant, by name, in any unit. Empty: equal shares."""
    start: datetime | None = None
    """Start of the experiment; UTC without a time zone. null: the earliest assignment, else the first exposure."""
    measures: tuple[str, ...] | None = None
    """Names of the measures to report: ctr, orders, conversion, gmv. null: all for which the input has columns."""
    level: float = Field(0.95, gt=0, lt=1)
    """Confidence level of all intervals and verdicts, between 0 and 1."""
    sample_ratio_p: float = Field(0.001, gt=0, lt=1)
    """Least p-value of the sample ratio test. Below it all verdicts are withheld, because users were lost or sorted."""
    max_crossed_share: float = Field(0.01, ge=0, le=1)
    """Largest share of users assigned to several variants. They are left out; with a larger share the command fails."""
    max_unpriced_share: float = Field(0.05, ge=0, le=1)
    """Largest share of purchases without a price. They count as 0 in GMV; with a larger share the command fails."""
    cuped: bool | None = None
    """Whether to reduce noise with rows from before the experiment (CUPED). null: if there are such rows."""
    sequential_users: int = Field(5000, ge=2)
    """Number of users at which the always-valid bounds are tightest. Choose it before the experiment starts."""
    resamples: int = Field(1000, ge=100)
    """Bootstrap resamples of users, for the intervals of amounts. More narrows the error of the intervals."""
    resplits: int = Field(0, ge=0)
    """Random re-assignments of the users (A/A tests) that measure the rate of false positives. 0: no A/A tests."""
    seed: int = Field(0, ge=0)
    """Seed of resamples and re-assignments."""

    @field_validator("measures")
    @classmethod
    def _known(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        allowed = [measure.name for measure in MEASURES]
        unknown = [name for name in names or () if name not in allowed]
        if unknown or names == ():
            raise ValueError(f"name some of {', '.join(allowed)}")
        return names

    @field_validator("shares")
    @classmethod
    def _positive(cls, shares: dict[str, float]) -> dict[str, float]:
        if not all(0 < share < float("inf") for share in shares.values()):
            raise ValueError("every share must be above 0; leave out variants that no user should see")
        return shares


class ReplayConfig(FrozenConfig):
    """Length, traffic and assignment of the online test of `simulate-experiment`."""

    days: int = Field(7, ge=1)
    """Length of the test in days. It starts on the day after the log's last day."""
    requests: int | None = Field(None, ge=1)
    """Requests per day. null: as many as a day of the log has."""
    treatment_share: float = Field(0.5, gt=0, lt=1)
    """Share of users that see the treatment, between 0 and 1."""
    seed: int = Field(0, ge=0)
    """Seed of assignment, clicks and purchases. The requests depend on the marketplace's own seed."""

"""Settings of `evaluate`."""

from typing import Self

from pydantic import Field, model_validator

from prectr.core.config import FrozenConfig


class EvaluateConfig(FrozenConfig):
    """What `evaluate` reports."""

    cold_requests: int = Field(3, ge=0)
    """A user with at most so many earlier requests is cold."""
    active_requests: int = Field(10, ge=2)
    """A user with at least so many is active."""
    top: int = Field(10, ge=1)
    """How many first places of a list of candidates count."""
    resamples: int = Field(500, ge=20)
    """Of the test day's users, for intervals."""
    level: float = Field(0.95, gt=0, lt=1)
    """Of all intervals."""
    seed: int = 0
    """Of the resampling."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.active_requests <= self.cold_requests + 1:
            raise ValueError(
                f"active_requests {self.active_requests} leaves no room for warm users above {self.cold_requests}"
            )
        return self

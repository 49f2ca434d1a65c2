"""Settings of `evaluate`."""

from typing import Self

from pydantic import Field, model_validator

from prectr.core.config import FrozenConfig


class EvaluateConfig(FrozenConfig):
    """Slices, list depth and intervals of `evaluate`."""

    cold_requests: int = Field(3, ge=0)
    """Most earlier requests of a cold user. Cold users form a slice of their own."""
    active_requests: int = Field(10, ge=2)
    """Fewest earlier requests of an active user. Users between cold and active are warm."""
    top: int = Field(10, ge=1)
    """Depth of list metrics: the first items of a list of candidates that NDCG, mean level and coverage count."""
    resamples: int = Field(500, ge=20)
    """Bootstrap resamples of the test day's users. More narrows the error of the intervals and takes longer."""
    level: float = Field(0.95, gt=0, lt=1)
    """Confidence level of all intervals, between 0 and 1. It also decides when a difference counts as shown."""
    seed: int = 0
    """Seed of the bootstrap. The same seed draws the same resamples."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.active_requests <= self.cold_requests + 1:
            raise ValueError(
                f"active_requests {self.active_requests} leaves no room for warm users above cold_requests "
                f"{self.cold_requests}; set it to {self.cold_requests + 2} or more"
            )
        return self

"""Settings of the built-in marketplace. Pydantic only, because the command line imports it at start."""

from typing import Literal, NamedTuple

from pydantic import Field

from prectr.core.config import FrozenConfig


class Scale(NamedTuple):
    """Sizes of a simulation; `requests` is the total over all `days`."""

    users: int
    items: int
    queries: int
    requests: int
    days: int


SCALES: dict[str, Scale] = {
    "small": Scale(users=2_000, items=6_000, queries=600, requests=20_000, days=10),
    "medium": Scale(users=20_000, items=30_000, queries=1_500, requests=200_000, days=14),
    "large": Scale(users=500_000, items=200_000, queries=4_000, requests=5_000_000, days=30),
}


class MarketplaceConfig(FrozenConfig):
    """Settings of a simulation. Sizes that are null come from `scale`; all other constants are fixed in `constants`."""

    scale: Literal["small", "medium", "large"] = "small"
    """Sizes of the simulation: small (20,000 requests, 10 days), medium (200,000, 14 days) or large (5,000,000, 30)."""
    seed: int = Field(default=7, ge=0)
    """Seed of all random draws. The same settings write the same bytes."""
    placebo: bool = False
    """Whether all users and queries get the same tolerance, so that a personal ranking cannot be better."""
    users: int | None = Field(default=None, ge=10)
    """Number of users. Null: from `scale`."""
    items: int | None = Field(default=None, ge=200)
    """Number of items in the catalogue. Null: from `scale`, or from the given catalogue."""
    queries: int | None = Field(default=None, ge=10)
    """Number of distinct queries. Null: from `scale`, or from the judgments of the given catalogue."""
    requests: int | None = Field(default=None, ge=1)
    """Number of requests over all days. Null: from `scale`."""
    days: int | None = Field(default=None, ge=1)
    """Number of simulated days. Null: from `scale`."""
    requests_per_file: int = Field(default=20_000, ge=1)
    """Requests that are simulated at once and written to one file. More of them use more memory. It also decides the
    random draws: another value gives another log."""

    @property
    def sizes(self) -> Scale:
        """The sizes of `scale`, replaced by those that are set."""
        overrides = {name: getattr(self, name) for name in Scale._fields if getattr(self, name) is not None}
        return SCALES[self.scale]._replace(**overrides)

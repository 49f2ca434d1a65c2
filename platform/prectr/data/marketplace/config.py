"""Configuration of the built-in marketplace. Pydantic only: the command line imports this at start."""

from typing import Literal, NamedTuple

from pydantic import Field

from prectr.core.config import FrozenConfig


class Scale(NamedTuple):
    """How much is simulated; `requests` is the total over all `days`."""

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
    """What to simulate. A size left at None comes from `scale`; the world's constants are frozen in `constants`."""

    scale: Literal["small", "medium", "large"] = "small"
    seed: int = Field(default=7, ge=0)
    placebo: bool = Field(default=False, description="all tolerances equal: personal relevance must bring nothing")
    users: int | None = Field(default=None, ge=10)
    items: int | None = Field(default=None, ge=200)
    queries: int | None = Field(default=None, ge=10)
    requests: int | None = Field(default=None, ge=1)
    days: int | None = Field(default=None, ge=1)
    requests_per_file: int = Field(default=20_000, ge=1, description="bounds memory; more make more files a day")

    @property
    def sizes(self) -> Scale:
        """The sizes of `scale` with the overrides applied."""
        overrides = {name: getattr(self, name) for name in Scale._fields if getattr(self, name) is not None}
        return SCALES[self.scale]._replace(**overrides)

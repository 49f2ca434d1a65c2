"""Settings of `report`."""

from pydantic import Field

from prectr.core.config import FrozenConfig


class ReportConfig(FrozenConfig):
    """What `report` writes."""

    core_hour_price: float | None = Field(None, ge=0)
    """What an hour of one core costs you; null: cost is told in core hours only."""
    currency: str = "USD"

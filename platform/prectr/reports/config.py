"""Settings of `report`."""

from pydantic import Field

from prectr.core.config import FrozenConfig


class ReportConfig(FrozenConfig):
    """Prices in the cost table of `report`."""

    core_hour_price: float | None = Field(None, ge=0)
    """Price of one core for one hour, in `currency`. null: the report gives core hours only."""
    currency: str = "USD"
    """Currency of `core_hour_price`, shown in the heading of the cost column."""

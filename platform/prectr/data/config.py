"""Settings of `validate`."""

from pydantic import Field

from prectr.core.config import FrozenConfig


class ValidateConfig(FrozenConfig):
    """When validation gives up."""

    max_bad_share: float = Field(0.01, ge=0, le=1)
    """Share of a table's rows that may be quarantined before the command fails."""

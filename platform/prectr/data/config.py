"""Settings of validation; `validate` and `import` share them."""

from pydantic import Field

from prectr.core.config import FrozenConfig


class ValidateConfig(FrozenConfig):
    """Limits of validation (settings section `validation`)."""

    max_bad_share: float = Field(0.01, ge=0, le=1)
    """Largest share (0..1) of bad rows in each table. Above it the command fails and publishes nothing."""

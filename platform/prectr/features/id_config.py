"""Settings of identities as features. Pydantic only: the command line imports this at start."""

from typing import Literal

from pydantic import Field

from prectr.core.config import FrozenConfig

IdColumn = Literal["user_id", "query", "item_id"]


class IdConfig(FrozenConfig):
    """How one column of ids becomes a feature."""

    kind: Literal["hash", "vocabulary"] = "hash"
    size: int = Field(default=100_000, ge=1, description="rows of a hash, or most entries of a vocabulary")
    minimum_count: int = Field(default=10, ge=1, description="vocabulary: impressions on training days an id needs")

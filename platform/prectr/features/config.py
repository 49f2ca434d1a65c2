"""Settings of `build-samples`."""

from typing import Literal

from pydantic import Field

from prectr.core.config import FrozenConfig
from prectr.core.mirror import LocalOrUri

IdColumn = Literal["user_id", "query", "item_id"]


class IdConfig(FrozenConfig):
    """How one column of ids becomes a feature."""

    kind: Literal["hash", "vocabulary"] = "hash"
    size: int = Field(default=100_000, ge=1, description="rows of a hash, or most entries of a vocabulary")
    minimum_count: int = Field(default=10, ge=1, description="vocabulary: impressions on training days an id needs")


class SamplesConfig(FrozenConfig):
    """Sizes of features and histories."""

    specification_from: LocalOrUri | None = None
    """Samples or a bundle whose feature specification (sizes, vocabularies, scalers) is kept, whatever is set below: a
    ranker that was trained with it can be judged on these samples and trained on. Null: a new one is fitted."""

    profile_columns: tuple[str, ...] = ("age_band", "city_tier", "device")
    """Columns of `users.parquet` used as features, where they are there."""
    user_behaviours: int = Field(default=20, ge=1)
    """S_u: the user's own most recent clicks."""
    ids: dict[IdColumn, IdConfig] = {}
    """Ids that are features, e.g. `{item_id: {kind: hash, size: 1000000}}`; none by default: on logs where most ids are
    rare they are learnt by heart."""
    price_buckets: int = Field(default=16, ge=2)
    query_buckets: int = Field(default=4096, ge=1)
    """Queries are hashed into so many buckets where a behaviour names its query."""
    max_positions: int = Field(default=64, ge=1)
    """Positions from here on share one bias."""
    scaler_rows: int = Field(default=2_000_000, ge=1)
    """Rows of the training days, taken evenly, that means and deviations of features are fitted on."""
    candidates: bool = True
    """Also make rows of the unexposed candidates of the held-back days, so that rankers can be judged on them."""
    online: bool = True
    """Write the state that serving starts from; a log that is only trained on does without."""

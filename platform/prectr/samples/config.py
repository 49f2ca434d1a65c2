"""Settings of `build-samples`."""

from prectr.configuration import FrozenConfig


class SamplesConfig(FrozenConfig):
    """Sizes of features and histories."""

    profile_columns: tuple[str, ...] = ("age_band", "city_tier", "device")
    """Columns of `users.parquet` used as features, where they are there."""
    user_behaviours: int = 20
    """S_u: the user's own most recent clicks."""
    price_buckets: int = 16
    query_buckets: int = 4096
    """Queries are hashed into so many buckets where a behaviour names its query."""
    max_positions: int = 64
    """Positions from here on share one bias."""
    holdout_days: int = 2
    """Last days that scalers are not fitted on: validation and test."""
    shards: int = 4
    """Blocks that rows are shuffled into by user."""

"""Settings of `build-samples`."""

from typing import Literal

from pydantic import Field

from prectr.core.config import FrozenConfig
from prectr.core.mirror import LocalOrUri

IdColumn = Literal["user_id", "query", "item_id"]


class IdConfig(FrozenConfig):
    """Settings of one column of ids as a feature."""

    kind: Literal["hash", "vocabulary"] = "hash"
    """`hash`: ids are hashed to embedding rows, and several ids may share a row. `vocabulary`: each frequent id of the
    training days has its own row, and other ids share the row of unknown ids."""
    size: int = Field(
        default=100_000, ge=1, description="Embedding rows of `hash`, or the largest number of ids of `vocabulary`."
    )
    minimum_count: int = Field(
        default=10, ge=1, description="Impressions on training days that an id needs to enter a `vocabulary`."
    )


class SamplesConfig(FrozenConfig):
    """Settings of the features, histories and online state that `build-samples` writes."""

    specification_from: LocalOrUri | None = None
    """Samples or a bundle whose feature specification (sizes, vocabularies, scalers) is used instead of the settings
    below. A ranker trained with that specification can be evaluated or trained further on these samples. Null: fit a
    new specification."""

    profile_columns: tuple[str, ...] = ("age_band", "city_tier", "device")
    """Columns of `users.parquet` that become features. Columns that the table lacks are ignored."""
    user_behaviours: int = Field(default=20, ge=1)
    """Most recent clicks of the user that the history S_u holds, at most. Rankers read them as a sequence."""
    ids: dict[IdColumn, IdConfig] = {}
    """Columns whose ids become features, e.g. `{item_id: {kind: hash, size: 1000000}}`. None by default, because
    rankers overfit to ids in logs where most ids are rare."""
    price_buckets: int = Field(default=16, ge=2)
    """Buckets of the price feature, cut at quantiles of the catalogue's log-prices."""
    query_buckets: int = Field(default=0, ge=0)
    """Buckets that queries are hashed to, as ids of the row's query and of the query of each behaviour. More buckets:
    fewer collisions, a larger embedding. 0: queries have no ids, so that the incentive cannot learn single queries by
    heart. Only daian, whose trigger is the query, needs them."""
    max_positions: int = Field(default=64, ge=1)
    """Positions that each have a bias. Positions beyond share the bias of the last one."""
    scaler_rows: int = Field(default=2_000_000, ge=1)
    """Rows that the means and deviations of features are computed from, spread evenly over the training days."""
    candidates: bool = True
    """Also write rows of unexposed candidates on the validation and test days, to evaluate rankers on them."""
    online: bool = True
    """Write the online state, which bundles and serving need. Set it to false if no bundle is made of these samples."""

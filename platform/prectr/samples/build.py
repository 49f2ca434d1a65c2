"""From a block of users' shown rows to sample rows: the state before each row, and the features derived from it."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl

from prectr.artifacts import read_manifest
from prectr.errors import PrectrError
from prectr.features.derive import SOURCES, RawState, derive
from prectr.features.spec import FeatureSpec, activity_group
from prectr.preferences.aggregates import KINDS, LEVEL_WIDTH, as_of
from prectr.preferences.config import PreferencesConfig
from prectr.preferences.fit import PreferenceModel
from prectr.preferences.tolerance import GRID_SIZE
from prectr.relevance.pairs import read_pairs
from prectr.samples import history
from prectr.samples.history import Jagged, UserBlock
from prectr.schema import LEVEL_COLUMNS
from prectr.tables import Tables

FEATURE_GROUPS = ("numeric", "tolerance", "query_preference")


@dataclass(frozen=True)
class Preferences:
    """A `mine-preferences` artifact, read."""

    model: PreferenceModel
    smoothing_clicks: float
    totals: dict[str, pl.DataFrame]
    centres: pl.DataFrame | None
    behaviours: pl.DataFrame
    query_category: pl.DataFrame

    @classmethod
    def open(cls, path: Path) -> "Preferences":
        """Read the artifact.

        Raises:
            PrectrError: it is not a `mine-preferences` artifact.
        """
        manifest = read_manifest(path)
        if manifest is None:
            raise PrectrError(f"{path}: no preferences here; make them with `prectr mine-preferences --out {path}`.")
        config = PreferencesConfig.model_validate(manifest["config"])
        return cls(
            PreferenceModel.load(path / "parameters.json"),
            config.smoothing_clicks,
            {kind: pl.read_parquet(path / "totals" / f"{kind}.parquet") for kind in KINDS},
            pl.read_parquet(path / "centres.parquet") if config.alternate else None,
            pl.read_parquet(path / "behaviours.parquet"),
            pl.read_parquet(path / "query_category.parquet"),
        )


@dataclass(frozen=True)
class SampleContext:
    """Everything besides the shown rows that a block's samples are made from."""

    preferences: Preferences
    spec: FeatureSpec
    users: pl.DataFrame
    pairs: pl.DataFrame
    query_behaviours: int

    @classmethod
    def open(cls, tables: Path, relevance: Path, preferences: Path, spec: FeatureSpec) -> "SampleContext":
        """Read the inputs of `build-samples`; one copy a process, shared by its tasks."""
        return cls(
            _preferences(preferences),
            spec,
            Tables(tables).users(),
            _pairs(relevance),
            spec.query_behaviours,
        )


@lru_cache(maxsize=1)
def _preferences(path: Path) -> Preferences:
    return Preferences.open(path)


@lru_cache(maxsize=1)
def _pairs(relevance: Path) -> pl.DataFrame:
    return read_pairs(relevance, ["encoder_expected", "source", *LEVEL_COLUMNS])


def sample_rows(rows: pl.DataFrame, context: SampleContext) -> pl.DataFrame:
    """The sample rows of a block that holds the whole log of some users.

    Args:
        rows: shown rows with examination and shifts (`prectr.preferences.shown`).
        context: the other inputs.

    Returns:
        identity columns, `cat.*` ids, the unscaled features of each group as `group.name`, and the lists of S_u
        (`su_pair`, `su_ts`) and S_q (`sq_pair`, `sq_clicked`, `sq_ts`, `sq_group`).
    """
    block = UserBlock.of(rows)
    state = raw_state(block, context)
    derived = derive(state, context.preferences.model, context.preferences.smoothing_clicks)
    ordered = block.rows
    features = {
        f"{group}.{name}": pl.Series(values.astype(np.float32))
        for group in FEATURE_GROUPS
        for name, values in derived[group].items()
    }
    own_clicks = history.recent_clicks(block, context.spec.user_behaviours)
    return ordered.select(
        "request_id",
        "user_id",
        "item_id",
        "query",
        "ts",
        "date",
        "position",
        "clicked",
        "purchased",
        "policy",
        "price",
        "pair",
        pl.Series("user_requests", state.user[:, GRID_SIZE].astype(np.int32)),
        *(pl.Series(f"cat.{name}", codes) for name, codes in categorical_codes(block, state, context).items()),
        *(values.alias(name) for name, values in features.items()),
        own_clicks.to_series(ordered["pair"]).alias("su_pair"),
        own_clicks.to_series(ordered["ts"].dt.epoch("us")).alias("su_ts"),
        *_cross_user_behaviours(ordered, context),
    )


def raw_state(block: UserBlock, context: SampleContext) -> RawState:
    """What was known before each row of a block; see `RawState` for the columns."""
    rows = block.rows
    model, totals = context.preferences.model, context.preferences.totals
    known = rows.select("pair").join(context.pairs, on="pair", how="left", maintain_order="left")
    total = as_of(rows.with_columns(pl.lit("").alias("total")), totals["total"], "total", LEVEL_WIDTH)
    own_query = block.earlier_days_within("query", history.query_sums(block, model))
    own_pair = block.earlier_days_within("pair", history.pair_sums(block))
    query = as_of(rows, totals["query"], "query", LEVEL_WIDTH) - own_query
    # Differences of equal sums may miss zero by a rounding error; counts must not become negative.
    query[:, GRID_SIZE:] = np.maximum(query[:, GRID_SIZE:], 0.0)
    return RawState(
        expected=rows["expected"].to_numpy(),
        encoder_expected=known["encoder_expected"].to_numpy().astype(np.float64),
        levels=known.select(LEVEL_COLUMNS).to_numpy().astype(np.float64),
        source=known["source"].replace_strict(list(SOURCES), list(range(len(SOURCES)))).to_numpy(),
        log_price=rows["log_price"].fill_null(np.nan).to_numpy(),
        user=block.before(history.user_sums(block, model)),
        user_price=block.before(history.price_sums(block)),
        user_brand=block.before_within("brand", history.click_sums(block)),
        user_category=block.before_within("category", history.click_sums(block)),
        query=query,
        category=as_of(rows, totals["category"], "category", LEVEL_WIDTH),
        total=total,
        item=as_of(rows, totals["item"], "item_id", 3),
        pair=np.maximum(as_of(rows, totals["pair"], "pair", 3) - own_pair, 0.0),
        query_prior=query_priors(rows["query"], context.preferences),
    )


def query_priors(queries: pl.Series, preferences: Preferences) -> np.ndarray:
    """[n, G] tolerance prior of each query, by the category mostly shown for it."""
    distinct = queries.unique().sort().to_frame("query")
    named = distinct.join(preferences.query_category, on="query", how="left", maintain_order="left")
    priors = preferences.model.query_priors(named["category"].to_list())
    codes = queries.to_frame("query").join(
        distinct.with_row_index("code"), on="query", how="left", maintain_order="left"
    )["code"]
    return priors[codes.to_numpy()]


def categorical_codes(block: UserBlock, state: RawState, context: SampleContext) -> dict[str, np.ndarray]:
    """Ids of the categorical fields, in the specification's order."""
    rows, spec = block.rows, context.spec
    profiles = rows.select("user_id").join(context.users, on="user_id", how="left", maintain_order="left")
    return {
        **spec.item_codes(rows.select("category", "brand")),
        "price": spec.price_bucket(state.log_price),
        "activity": activity_group(state.user[:, GRID_SIZE]),
        **spec.profile_codes(profiles),
    }


def _cross_user_behaviours(rows: pl.DataFrame, context: SampleContext) -> list[pl.Series]:
    """S_q of each row: the query's list as of the row's day, without the row's own user, best first."""
    states = context.preferences.behaviours.with_columns(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("state"), pl.col("pair").list.len().alias("length")
    ).sort("date")
    wanted = rows.select("query", "date", "user_id").with_row_index("row")
    joined = wanted.sort("date").join_asof(
        states.select("query", "date", "state"),
        on="date",
        by="query",
        strategy="backward",
        allow_exact_matches=False,
        check_sortedness=False,
    )
    exploded = (
        joined.select("row", "state", pl.col("user_id").alias("own"))
        .drop_nulls("state")
        .join(states.select("state", "user_id", "pair", "clicked", "ts", "user_group"), on="state", how="left")
        .explode("user_id", "pair", "clicked", "ts", "user_group")
        .filter(pl.col("user_id") != pl.col("own"))
        .with_columns(pl.int_range(pl.len()).over("row").alias("place"))
        .filter(pl.col("place") < context.query_behaviours)
        .sort("row", "place")
    )
    lengths = np.bincount(exploded["row"].to_numpy(), minlength=rows.height)
    lists = Jagged(np.arange(exploded.height), np.r_[0, np.cumsum(lengths)])
    return [
        lists.to_series(exploded["pair"]).alias("sq_pair"),
        lists.to_series(exploded["clicked"].cast(pl.Int8)).alias("sq_clicked"),
        lists.to_series(exploded["ts"].dt.epoch("us")).alias("sq_ts"),
        lists.to_series(exploded["user_group"]).alias("sq_group"),
    ]

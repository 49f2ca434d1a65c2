"""From a block of users' shown rows to sample rows: the state before each row, and the features derived from it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from prectr.contracts.schema import LEVEL_COLUMNS
from prectr.core.coding import code_column, find_codes
from prectr.data.tables import Tables
from prectr.features.derive import SOURCES, RawState, derive
from prectr.features.history import Jagged, UserBlock, spans
from prectr.features.spec import FeatureSpec
from prectr.preferences.behaviours import LISTED, activity_group
from prectr.preferences.mined import Preferences
from prectr.preferences.sums import USER_NAMES
from prectr.preferences.tolerance import GRID_SIZE

FEATURE_GROUPS = ("numeric", "tolerance", "query_preference")
_REQUESTS = USER_NAMES.index("requests")


@dataclass(frozen=True)
class SampleContext:
    """Everything besides the shown rows that a block's samples are made from; tables are read as far as needed."""

    preferences: Preferences
    spec: FeatureSpec
    tables: Tables
    relevance: Path

    def block(self, rows: pl.DataFrame) -> UserBlock:
        """A block of rows, sorted and numbered."""
        relative = self.spec.relative_price(rows["log_price"].to_numpy(), rows["category"])
        rows = rows.with_columns(pl.Series("relative_price", relative))
        return UserBlock.of(rows, self.preferences.table, self.preferences.config.half_life_days)

    def pairs(self, wanted: pl.Series) -> pl.DataFrame:
        """Relevance of some pairs, in their order; `wanted` may repeat."""
        known = pl.scan_parquet(self.relevance / "pairs" / "*.parquet").select(
            "pair", "expected", "encoder_expected", "source", *LEVEL_COLUMNS
        )
        return _looked_up(known, wanted.alias("pair"))

    def profiles(self, wanted: pl.Series) -> pl.DataFrame:
        """User profiles of some distinct users, in their order; null where there is none."""
        if not self.tables.has("users"):
            return wanted.to_frame("user_id")
        return _looked_up(pl.scan_parquet(self.tables.path / "users.parquet"), wanted.alias("user_id"))


def _looked_up(known: pl.LazyFrame, wanted: pl.Series) -> pl.DataFrame:
    keys = wanted.unique().to_frame()
    found = known.join(keys.lazy(), on=wanted.name, how="semi").collect(engine="streaming")
    return wanted.to_frame().join(found, on=wanted.name, how="left", maintain_order="left")


def sample_rows(rows: pl.DataFrame, context: SampleContext) -> pl.DataFrame:
    """The sample rows of a block that holds the whole log of some users.

    Args:
        rows: of `prectr.features.read.read_rows`.
        context: the other inputs.

    Returns:
        `exposed`, identity columns, `cat.*` ids, the unscaled features of each group as `group.name`, and the lists of
        S_u (`su_pair`, `su_ts`) and S_q (`sq_pair`, `sq_clicked`, `sq_ts`, `sq_group`).
    """
    block = context.block(rows)
    state = raw_state(block, context)
    derived = derive(state, context.preferences.model)
    ordered = block.rows
    features = [
        pl.Series(f"{group}.{name}", values.astype(np.float32))
        for group in FEATURE_GROUPS
        for name, values in derived[group].items()
    ]
    own_clicks = block.recent_clicks(context.spec.user_behaviours).rows(block.request)
    requests = state.user[block.request, _REQUESTS].astype(np.int32)
    return ordered.select(
        "exposed",
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
        pl.Series("user_requests", requests),
        *(pl.Series(f"cat.{name}", codes) for name, codes in categorical_codes(block, requests, context).items()),
        *features,
        own_clicks.to_series(ordered["pair"]).alias("su_pair"),
        own_clicks.to_series(ordered["ts"].dt.epoch("us")).alias("su_ts"),
        *_cross_user_behaviours(block, context),
    )


def raw_state(block: UserBlock, context: SampleContext) -> RawState:
    """What was known before each row of a block; see `RawState` for the columns."""
    rows, mined = block.rows, context.preferences
    known = context.pairs(rows["pair"])
    of_request = rows.select("query", "date")[block.first]
    query_days, query_place = _distinct(of_request, "query")
    query_rows, query_sums = mined.before("query", query_days)
    category_days, category_of = _distinct(rows.select("category", "date"), "category")
    _, category = mined.before("category", category_days)
    days, day_place = _distinct(of_request.select("date"))
    _, total = mined.before("total", days)
    own_sums, typed_before = block.own_query()
    query = query_sums[query_place] - own_sums
    # Differences of equal sums may miss zero by a rounding error; counts must not become negative.
    query[:, GRID_SIZE:] = np.maximum(query[:, GRID_SIZE:], 0.0)
    users = query_rows["users"].fill_null(0.0).to_numpy()[query_place] - typed_before
    moment = block.moments.of_row[block.first]
    distinct = query_days["query"].unique()
    priors = mined.query_priors(distinct)
    return RawState(
        request=block.request,
        expected=known["expected"].to_numpy().astype(np.float64),
        encoder_expected=known["encoder_expected"].to_numpy().astype(np.float64),
        levels=known.select(LEVEL_COLUMNS).to_numpy().astype(np.float64),
        source=known["source"].replace_strict(list(SOURCES), list(range(len(SOURCES)))).to_numpy(),
        log_price=block.log_price,
        log_list_price=rows["log_list_price"].to_numpy(),
        relative_price=block.relative_price,
        user=block.user_before()[moment],
        user_price=block.moments.before(block.moment_prices(), block.half_life)[moment],
        user_brand=block.counts_before("brand"),
        user_category=block.counts_before("category"),
        query=query,
        query_users=np.maximum(users, 0.0),
        category=category,
        category_of=category_of,
        total=total[day_place],
        item=rows.select("item_examined", "item_clicks").to_numpy(),
        pair=np.maximum(
            rows.select("pair_examined", "pair_clicks").to_numpy() - block.counts_before("pair", by_day=True), 0.0
        ),
        query_prior=priors[find_codes(query_days["query"], distinct)][query_place],
    )


def categorical_codes(block: UserBlock, requests: np.ndarray, context: SampleContext) -> dict[str, np.ndarray]:
    """Ids of the categorical fields, in the specification's order; `requests` are the user's earlier ones, [n]."""
    rows, spec = block.rows, context.spec
    profiles = spec.profile_codes(context.profiles(block.users))
    return {
        **spec.item_codes(rows.select("category", "brand")),
        "price": spec.price_bucket(block.log_price),
        "activity": activity_group(requests),
        **{name: codes[block.user] for name, codes in profiles.items()},
        **spec.id_codes(rows),
    }


def _cross_user_behaviours(block: UserBlock, context: SampleContext) -> list[pl.Series]:
    """S_q of each row: the query's list as of the row's day, without the row's own user, best first."""
    of_request = block.rows.select("query", "date")[block.first]
    wanted, place = _distinct(of_request, "query")
    listed = context.preferences.behaviours_before(wanted)
    listed = listed.join(wanted.with_row_index("place"), on=["query", "date"], how="left", maintain_order="left")
    listed = listed.select("place", *LISTED, "query")[np.argsort(listed["place"].to_numpy(), kind="stable")]
    bounds = np.searchsorted(listed["place"].to_numpy(), np.arange(len(wanted) + 1))
    lists = spans(np.arange(listed.height), bounds[:-1][place], bounds[1:][place])

    # Take the own user out, and keep the first of the rest.
    behaved = find_codes(listed["user_id"], block.users)
    lengths = np.diff(lists.offsets)
    request = np.repeat(np.arange(len(lengths)), lengths)
    others = behaved[lists.values] != block.user[block.first][request]
    rank = np.cumsum(others) - np.r_[0, np.cumsum(others)][lists.offsets[request]]
    kept = others & (rank <= context.spec.query_behaviours)
    counts = np.bincount(request[kept], minlength=len(lengths))
    of_rows = Jagged(lists.values[kept], np.r_[0, np.cumsum(counts)]).rows(block.request)
    return [
        of_rows.to_series(_pairs_listed(listed, context)).alias("sq_pair"),
        of_rows.to_series(listed["clicked"].cast(pl.Int8)).alias("sq_clicked"),
        of_rows.to_series(listed["ts"].dt.epoch("us")).alias("sq_ts"),
        of_rows.to_series(listed["user_group"]).alias("sq_group"),
    ]


def _pairs_listed(listed: pl.DataFrame, context: SampleContext) -> pl.Series:
    """Numbers of the pairs of behaviours, which are kept by query and item."""
    wanted = listed.select("query", "item_id")
    pairs = pl.scan_parquet(context.relevance / "pairs" / "*.parquet").select("query", "item_id", "pair")
    found = pairs.join(wanted.lazy(), on=["query", "item_id"], how="semi").collect(engine="streaming")
    return wanted.join(found, on=["query", "item_id"], how="left", maintain_order="left")["pair"]


def _distinct(rows: pl.DataFrame, key: str | None = None) -> tuple[pl.DataFrame, np.ndarray]:
    """Distinct (key, date) of rows, and the place of each row in them."""
    day = rows["date"].to_physical().to_numpy().astype(np.int64)
    code = code_column(rows[key]).codes if key is not None else np.zeros(len(day), np.int32)
    _, first, place = np.unique((code.astype(np.int64) << 32) + day, return_index=True, return_inverse=True)
    return rows[first], place

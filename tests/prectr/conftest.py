"""A tiny random log with everything that mining and sampling need, built without Ray."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from jobs.mine_preferences import _centres
from prectr.features.spec import activity_group, fit_vocabularies
from prectr.preferences import aggregates
from prectr.preferences.behaviours import behaviour_states, day_behaviours
from prectr.preferences.examination import Examination
from prectr.preferences.fit import PreferenceModel
from prectr.preferences.shown import with_examination, with_shifts
from prectr.preferences.tolerance import GRID, GRID_SIZE, ClickParameters
from prectr.samples.build import Preferences, SampleContext

DAYS = [date(2026, 3, 1) + timedelta(days=number) for number in range(4)]
QUERIES = ("nokia 3310", "phone", "sofa")
LIMIT = 2  # behaviours of S_q and S_u, few enough that lists are cut


def _prior(centre: float) -> np.ndarray:
    weight = np.exp(-0.5 * ((GRID - centre) / 0.25) ** 2)
    return weight / weight.sum()


MODEL = PreferenceModel(
    click=ClickParameters(a=0.4, s=0.15, eps=0.02),
    examination=Examination(0.8, "test", 0),
    user_prior=_prior(0.5),
    query_prior=_prior(0.6),
    category_query_prior={"phones > old": _prior(0.4), "": _prior(0.9)},
)


@dataclass(frozen=True)
class MinedLog:
    """The shown rows of a log (`rows`, with examination and shifts) and what was mined from `known` days of it."""

    shown: pl.DataFrame
    rows: pl.DataFrame
    items: pl.DataFrame
    pairs: pl.DataFrame
    context: SampleContext


def draw_log(seed: int) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Shown rows in no order, items and pairs. Few users, queries and moments, so that all of them collide."""
    rng = np.random.default_rng(seed)
    brands = ["nokia", None, "ikea", "nokia", None]
    items = pl.DataFrame(
        {
            "item_id": [f"i{number}" for number in range(5)],
            "title": [f"item {number} nokia 3310" for number in range(5)],
            "category": ["phones > old", "phones > old", "sofas", "phones > new", "sofas"],
            "brand": brands,
            "price": [10.0, 20.0, 300.0, None, 150.0],
        }
    )
    levels = rng.dirichlet(np.ones(4), 15).astype(np.float32)
    pairs = pl.DataFrame(
        {
            "pair": np.arange(15, dtype=np.int32),
            "query": np.repeat(QUERIES, 5),
            "item_id": [f"i{number}" for number in range(5)] * 3,
            **{f"level_{level}": levels[:, level] for level in range(4)},
            "expected": levels @ np.arange(4, dtype=np.float32) / 3,
            "source": rng.choice(["judgment", "teacher", "encoder"], 15),
            "encoder_expected": rng.random(15).astype(np.float32),
            "match_a": rng.random(15).astype(np.float32),
            "match_b": rng.random(15).astype(np.float32),
            "query_tokens": np.full(15, 3, np.int16),
            "input_ids": [[2, 9, 3, 10 + number % 5, 3] for number in range(15)],
        }
    )
    rows = []
    for number in range(26):
        user, query, day = rng.integers(0, 4), rng.integers(0, 3), int(rng.integers(0, 4))
        ts = datetime(2026, 3, 1 + day, 8 + int(rng.integers(0, 3)), tzinfo=UTC)
        for position, item in enumerate(rng.permutation(5)[: rng.integers(1, 5)], start=1):
            rows.append(
                {
                    "request_id": f"r{number * 7 % 26:02d}",  # not in the order of time
                    "user_id": f"u{user}",
                    "ts": ts,
                    "query": QUERIES[query],
                    "item_id": f"i{item}",
                    "position": position,
                    "clicked": bool(rng.random() < 0.35),
                    "date": DAYS[day],
                    "file": f"part-{number % 2:04d}.parquet",
                    "pair": int(query * 5 + item),
                    "exposure_price": float(rng.integers(5, 400)) if rng.random() < 0.3 else None,
                }
            )
    kinds = {"position": pl.Int32, "pair": pl.Int32, "ts": pl.Datetime("us", "UTC"), "exposure_price": pl.Float64}
    shown = pl.DataFrame(rows, schema_overrides=kinds, infer_schema_length=None)
    joined = (
        shown.join(items.select("item_id", "category", "brand", list_price="price"), on="item_id", how="left")
        .join(pairs.select("pair", pl.col("expected").cast(pl.Float64)), on="pair", how="left")
        .with_columns(
            price=pl.coalesce("exposure_price", "list_price"),
            purchased=pl.lit(None, pl.Boolean),
            policy=pl.lit(None, pl.String),
            level=pl.Series(levels.argmax(axis=1))[shown["pair"].to_list()].cast(pl.Int32),
        )
        .with_columns(log_price=pl.col("price").log())
    )
    return joined.drop("exposure_price", "list_price").sample(fraction=1, shuffle=True, seed=seed), items, pairs


def _over_files(rows: pl.DataFrame, scan: Callable[[pl.DataFrame, int], pl.DataFrame]) -> pl.DataFrame:
    files = rows.partition_by("date", "file", as_dict=True)
    return pl.concat([scan(files[key], number) for number, key in enumerate(sorted(files))])


def mine(shown: pl.DataFrame, items: pl.DataFrame, pairs: pl.DataFrame, known: list[date] | None = None) -> MinedLog:
    """What `mine-preferences` and `build-samples` compute, in one process and with a model that is given.

    Args:
        shown: rows of `draw_log`, flipped or cut as a test likes.
        items: the catalogue.
        pairs: the scored pairs.
        known: the days that preferences are mined from; all by default.
    """
    mined = shown if known is None else shown.filter(pl.col("date").is_in(known))
    query_category = pl.DataFrame({"query": ["nokia 3310", "sofa"], "category": ["phones > old", "sofas"]})

    def pass_over(centres: pl.DataFrame | None) -> pl.DataFrame:
        prepared = with_shifts(with_examination(mined, MODEL), centres)
        scanned = _over_files(
            prepared, lambda rows, part: aggregates.partial_aggregates(rows, part, MODEL.click, aggregates.KINDS)
        )
        return aggregates.merge_partials(scanned)

    first = pass_over(None)
    centres = _centres(first, MODEL, query_category)
    totals = pass_over(centres)
    users = first.filter(pl.col("kind") == "user").select("key", "date", "sums")

    def scan(rows: pl.DataFrame, _: int) -> pl.DataFrame:
        requests = aggregates.as_of(rows, users, "user_id", aggregates.USER_WIDTH)[:, GRID_SIZE]
        return day_behaviours(rows.with_columns(pl.Series("user_group", activity_group(requests))), LIMIT)

    profiles = pl.DataFrame({"user_id": ["u0", "u1", "u9"], "device": ["phone", None, "desk"]})
    spec = fit_vocabularies(
        items, profiles, profile_columns=("device", "absent"), price_buckets=3, query_buckets=64,
        user_behaviours=LIMIT, query_behaviours=LIMIT, positions=8,
    )  # fmt: skip
    preferences = Preferences(
        model=MODEL,
        smoothing_clicks=2.0,
        totals={kind: totals.filter(pl.col("kind") == kind).drop("kind") for kind in aggregates.KINDS},
        centres=centres,
        behaviours=behaviour_states(_over_files(mined, scan), LIMIT),
        query_category=query_category,
    )
    context = SampleContext(preferences, spec, profiles, pairs, LIMIT)
    return MinedLog(shown, with_shifts(with_examination(shown, MODEL), centres), items, pairs, context)


@pytest.fixture
def laboratory() -> SimpleNamespace:
    """`draw_log(seed)` and `mine(shown, items, pairs, known)`."""
    return SimpleNamespace(draw_log=draw_log, mine=mine, days=DAYS)

"""The marketplace played on with two rankers: its log, its truth, and how often tests hold the truth."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom

from prectr.contracts.schema import IMPRESSIONS
from prectr.data.marketplace import MarketplaceConfig, constants, prepare
from prectr.data.marketplace.log import draw_requests, show
from prectr.evaluation.experiments.config import PRODUCTION, ReplayConfig
from prectr.evaluation.experiments.ratio import Difference, Moments, Ratio
from prectr.evaluation.experiments.replay import Replay, replay

DAYS, REQUESTS = 3, 400


@pytest.fixture(scope="module")
def world():
    return prepare(MarketplaceConfig(users=300, items=800, queries=60, requests=600, days=2, seed=5)).world


def by_relevance(world, days) -> list[np.ndarray]:
    """A ranker that knows the relevance."""
    score = np.where(world.pools.item >= 0, world.pools.r, -np.inf)
    order = np.argsort(-score, axis=1, kind="stable").astype(np.int32)
    return [order[requests.query] for requests in days]


@pytest.fixture(scope="module")
def played(world) -> Replay:
    """Production against that ranker."""
    config = ReplayConfig(days=DAYS, seed=1)
    control = replay(world, 2, REQUESTS, [PRODUCTION, PRODUCTION], config)
    return Replay(world, control.requests, [control.orders[0], by_relevance(world, control.requests)], config)


def logged(played: Replay) -> pl.DataFrame:
    return pl.concat(pl.from_arrow(day.exposures) for day in played.days())


def test_the_log_keeps_the_contract_and_goes_on_after_the_log(world, played) -> None:
    rows = logged(played)
    assert set(rows.columns) <= {column.name for column in IMPRESSIONS.columns}
    assert rows["ts"].dt.date().unique().sort().to_list() == [
        constants.FIRST_DAY.replace(day=constants.FIRST_DAY.day + 2 + day) for day in range(DAYS)
    ]
    assert rows.height == DAYS * REQUESTS * constants.SHOWN
    assert rows.select("request_id", "item_id").is_duplicated().sum() == 0
    assert not (rows["purchased"] & ~rows["clicked"]).any()
    # The requests are those that a longer log would have had.
    longer = draw_requests(world, 2, REQUESTS)
    first = rows.filter(pl.col("request_id").str.starts_with("r002-")).unique("request_id", maintain_order=True)
    assert first["user_id"].to_list() == world.users.ids.take(longer.user).to_pylist()


def test_a_user_sees_one_variant_and_its_ranker_orders_the_list(world, played) -> None:
    rows = logged(played)
    assert rows.group_by("user_id").agg(pl.col("policy").n_unique())["policy"].max() == 1
    share = rows.unique("user_id")["policy"].value_counts(normalize=True).filter(pl.col("policy") == "treatment")
    assert share["proportion"][0] == pytest.approx(0.5, abs=0.12)
    best = pl.DataFrame({"item_id": world.items.ids.to_pylist(), "item": np.arange(len(world.items.ids))})
    first = rows.filter((pl.col("position") == 1) & (pl.col("policy") == "treatment")).join(best, on="item_id")
    relevance = {
        (query, item): r
        for query, pool, rs in zip(world.queries.texts, world.pools.item.tolist(), world.pools.r.tolist())
        for item, r in zip(pool, rs)
    }
    highest = dict(zip(world.queries.texts, world.pools.r.max(axis=1).tolist()))
    shown = first.with_columns(query=pl.col("query").str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars())
    assert shown.height > 100
    for query, item in shown.select("query", "item").iter_rows():
        assert relevance[query, item] == highest[query]


def test_assignment_names_everybody_who_came_from_their_first_row_on(played) -> None:
    rows = pl.concat(pl.from_arrow(day.exposures) for day in played.days())
    assignment = pl.from_arrow(played.assignment()).sort("user_id")
    expected = rows.group_by("user_id").agg(pl.col("policy").first().alias("variant"), pl.col("ts").min())
    assert assignment.equals(expected.sort("user_id"))


def test_truth_is_the_sum_of_the_click_model_over_all_requests(world, played) -> None:
    for _ in played.days():
        pass
    for variant in range(2):
        clicks = orders = amount = 0.0
        none: dict[int, float] = {}
        for requests, order in zip(played.requests, played.orders[variant]):
            shown = show(world, requests, order)
            for row, click, purchase, price in zip(shown.row, shown.p_click, shown.p_purchase, shown.price):
                clicks += click
                orders += click * purchase
                amount += 0.0 if np.isnan(price) else click * purchase * price
                user = int(requests.user[row])
                none[user] = none.get(user, 1.0) * (1 - click * purchase)
        sums = played.truth[variant].all_sums()
        assert sums["clicks"] == pytest.approx(clicks) and sums["orders"] == pytest.approx(orders)
        assert sums["amount"] == pytest.approx(amount)
        assert sums["impressions"] == DAYS * REQUESTS * constants.SHOWN and sums["users"] == len(none)
        assert sums["converted"] == pytest.approx(sum(1 - chance for chance in none.values()))


def test_the_same_ranker_twice_is_truly_the_same(world) -> None:
    same = replay(world, 2, REQUESTS, [PRODUCTION, PRODUCTION], ReplayConfig(days=1))
    for _ in same.days():
        pass
    assert same.truth[0].all_sums() == same.truth[1].all_sums()
    again = replay(world, 2, REQUESTS, [PRODUCTION, PRODUCTION], ReplayConfig(days=1))
    assert next(iter(again.days())).exposures.equals(next(iter(same.days())).exposures)
    other = replay(world, 2, REQUESTS, [PRODUCTION, PRODUCTION], ReplayConfig(days=1, seed=1))
    assert not next(iter(other.days())).exposures["clicked"].equals(next(iter(same.days())).exposures["clicked"])


def test_intervals_of_many_tests_hold_the_truth_as_often_as_they_say(played) -> None:
    """The same requests and rankers, other assignments and clicks: 95 % intervals, of CTR and of orders per capita."""
    tests = 100
    held = {"clicked": 0, "purchased": 0}
    for seed in range(tests):
        mine = Replay(played.world, played.requests, played.orders, ReplayConfig(days=DAYS, seed=seed))
        rows = pl.concat(pl.from_arrow(day.exposures) for day in mine.days())
        users = rows.group_by("user_id").agg(
            pl.col("policy").first(),
            pl.len().cast(float).alias("rows"),
            pl.col("clicked", "purchased").sum().cast(float),
        )
        truths = [truth.all_sums() for truth in mine.truth]
        for column, above, below in (("clicked", "clicks", "impressions"), ("purchased", "orders", "users")):
            pair = []
            for variant in ("control", "treatment"):
                part = users.filter(pl.col("policy") == variant)
                own = part["rows"].to_numpy() if below == "impressions" else np.ones(part.height)
                pair.append(Ratio.of(Moments.of(part[column].to_numpy(), own)))
            truth = truths[1][above] / truths[1][below] - truths[0][above] / truths[0][below]
            interval = Difference.of(*pair).interval(0.95)
            held[column] += interval.low <= truth <= interval.high
    lowest = binom.ppf(0.001, tests, 0.95)
    assert all(count >= lowest for count in held.values()), held
    assert held["clicked"] < tests or held["purchased"] < tests, "intervals that always hold are too wide"

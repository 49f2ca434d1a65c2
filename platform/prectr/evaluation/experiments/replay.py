"""Online test of two rankers on the simulated marketplace: its exposures, and the true effect.

The marketplace continues for some days after its log with the same users, queries, pools and click model, and with the
requests that a longer log would have. A hash of the user chooses the variant that a user sees. The variant orders the
pool of each request, and the first items are shown:

    a bundle       orders by click probability, as serving does, with features from the online state in the bundle. That
                   state is as of the end of the log; it is neither retrained nor updated during the test
    "production"   the logging policy, without its randomised slice

The truth needs no random clicks: each request is shown to both rankers, and the probabilities of the click model are
summed. The order of the logging policy is random; the truth uses the orders that were drawn for the test.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from prectr.data.marketplace import randomness
from prectr.data.marketplace.log import (
    Requests,
    Shown,
    World,
    day_date,
    draw_requests,
    logging_order,
    request_columns,
    show,
)
from prectr.data.marketplace.randomness import pair_uniform
from prectr.evaluation.experiments.config import PRODUCTION, ReplayConfig
from prectr.evaluation.experiments.measures import SUMS
from prectr.ranking.batch_ranking import BatchRanking, PoolRequest

VARIANTS = ("control", "treatment")
ASSIGNMENT_SALT = 4
"""Keeps the hash of the assignment independent of other hashes of the user."""
_ORDERS, _CLICKS = 4, 3  # random streams that the log does not use


@dataclass(frozen=True)
class ReplayedDay:
    """Exposures of one day, as canonical impressions."""

    date: date
    exposures: pa.Table


@dataclass
class Truth:
    """Expected sums over all requests if all users saw one variant.

    Attributes:
        sums: impressions, clicks, orders and amount.
        no_order: log of the probability that a user orders nothing, [users of the world].
        seen: whether a user was shown anything, bool [users of the world].
    """

    users: int
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SUMS, 0.0))

    def __post_init__(self) -> None:
        self.no_order = np.zeros(self.users)
        self.seen = np.zeros(self.users, bool)

    def add(self, requests: Requests, shown: Shown) -> None:
        """Add the expected sums of requests."""
        ordered = shown.p_click * shown.p_purchase
        self.sums["impressions"] += len(shown.row)
        self.sums["clicks"] += float(shown.p_click.sum())
        self.sums["orders"] += float(ordered.sum())
        self.sums["amount"] += float(np.nan_to_num(ordered * shown.price, nan=0.0).sum())
        self.no_order += np.bincount(requests.user[shown.row], weights=np.log1p(-ordered), minlength=self.users)
        self.seen[requests.user[shown.row]] = True

    def all_sums(self) -> dict[str, float]:
        """The sums, the number of users, and the expected number of users with an order."""
        converted = float(-np.expm1(self.no_order[self.seen]).sum())
        return {**self.sums, "users": float(self.seen.sum()), "converted": converted}


@dataclass
class Replay:
    """A simulated test: iterate over `days`, then read `truth` and `assignment`.

    Attributes:
        world: the simulated marketplace.
        requests: requests of each day.
        orders: slots of the pool in the order of the ranking, [variant][day] (n, POOL).
        config: shares and seed.
        truth: after `days`: truth of control and treatment.
    """

    world: World
    requests: list[Requests]
    orders: list[list[np.ndarray]]
    config: ReplayConfig

    def __post_init__(self) -> None:
        users = len(self.world.users.ids)
        self.treated = pair_uniform(np.arange(users), self.config.seed, ASSIGNMENT_SALT) < self.config.treatment_share
        self._restart()

    def _restart(self) -> None:
        users = len(self.world.users.ids)
        self.truth = [Truth(users), Truth(users)]
        self._first_seen = np.full(users, -1, np.int64)

    def days(self) -> Iterator[ReplayedDay]:
        """Show items, draw clicks and purchases, one day at a time; each iteration gives the same days."""
        self._restart()
        for number, requests in enumerate(self.requests):
            for variant, truth in enumerate(self.truth):
                truth.add(requests, show(self.world, requests, self.orders[variant][number]))
            control, treatment = (orders[number] for orders in self.orders)
            shown = show(self.world, requests, np.where(self.treated[requests.user][:, None], treatment, control))
            rng = randomness.stream(self.world.seed, randomness.LOG, _CLICKS, self.config.seed, requests.day)
            exposures = self._exposures(requests, shown, *shown.draw(rng))
            times = exposures["ts"].cast(pa.int64()).to_numpy()
            users, first_rows = np.unique(requests.user[shown.row], return_index=True)
            is_new = self._first_seen[users] < 0
            self._first_seen[users[is_new]] = times[first_rows[is_new]]
            yield ReplayedDay(day_date(requests.day), exposures)

    def _exposures(self, requests: Requests, shown: Shown, clicked: np.ndarray, bought: np.ndarray) -> pa.Table:
        """Canonical impressions whose `policy` is the variant."""
        variant = self.treated[requests.user[shown.row]].astype(np.int8)
        return pa.table(
            {
                **request_columns(self.world, requests, shown.row),
                "item_id": self.world.items.ids.take(pa.array(shown.met.item)),
                "position": shown.position,
                "clicked": clicked,
                "purchased": bought,
                "policy": pa.array(VARIANTS).take(pa.array(variant)),
                "price": pa.array(shown.price, from_pandas=True),
            }
        )

    def assignment(self) -> pa.Table:
        """user_id, variant and time of the first exposure of each user with an exposure; call it after `days`."""
        users = np.flatnonzero(self._first_seen >= 0)
        return pa.table(
            {
                "user_id": self.world.users.ids.take(pa.array(users)),
                "variant": pa.array(VARIANTS).take(pa.array(self.treated[users].astype(np.int8))),
                "ts": pa.array(self._first_seen[users]).cast(pa.timestamp("us", tz="UTC")),
            }
        )


def replay(
    world: World,
    first_day: int,
    daily_requests: int,
    rankers: Sequence[Path | str],
    config: ReplayConfig,
    advance: Callable[[int], None] | None = None,
) -> Replay:
    """Draw the requests of the test and let both rankers order them.

    Args:
        world: the marketplace of the log.
        first_day: number of the day after the log's last day.
        daily_requests: requests per day of the log; `config.requests` overrides it.
        rankers: control and treatment, each the directory of a bundle or `PRODUCTION`.
        config: days, shares of users, seed.
        advance: called with the number of requests that the bundles have ordered.

    Raises:
        UsageError: a directory holds no bundle.
        PrectrError: a bundle was trained on another catalogue.
    """
    days = [draw_requests(world, first_day + day, config.requests or daily_requests) for day in range(config.days)]
    days = [replace(requests, explore=np.zeros(len(requests), bool)) for requests in days]
    bundles = list(dict.fromkeys(ranker for ranker in rankers if isinstance(ranker, Path)))
    orders: dict[Path | str, list[np.ndarray]] = {}
    if bundles:
        orders |= zip(bundles, _bundle_orders(world, days, bundles, advance))
    if PRODUCTION in rankers:
        orders[PRODUCTION] = [
            logging_order(world, requests, randomness.stream(world.seed, randomness.LOG, _ORDERS, requests.day))[0]
            for requests in days
        ]
    return Replay(world, days, [orders[ranker] for ranker in rankers], config)


def _bundle_orders(
    world: World, days: Sequence[Requests], bundles: Sequence[Path], advance: Callable[[int], None] | None
) -> list[list[np.ndarray]]:
    """Slots of each request's pool sorted by click logit, ties in pool order: [bundle][day] (n, POOL)."""
    items, users, typed = (ids.to_pylist() for ids in (world.items.ids, world.users.ids, world.queries.typed))
    sizes = (world.pools.item >= 0).sum(axis=1)
    pools = [[items[item] for item in pool[:size]] for pool, size in zip(world.pools.item.tolist(), sizes.tolist())]
    requests = [
        PoolRequest(users[user], typed[text], pools[query], seconds, query)
        for day in days
        for user, query, text, seconds in zip(
            day.user.tolist(), day.query.tolist(), day.typed.tolist(), _seconds(day).tolist()
        )
    ]
    ends = np.cumsum([len(day) for day in days])[:-1]
    orders = []
    with closing(BatchRanking(bundles)) as ranking:
        scored = ranking.click_logits(requests, advance)
    for logits in scored:
        table = np.full((len(requests), world.pools.item.shape[1]), -np.inf, np.float32)
        for row, values in zip(table, logits, strict=True):
            row[: len(values)] = values
        orders.append(np.split(np.argsort(-table, axis=1, kind="stable").astype(np.int32), ends))
    return orders


def _seconds(requests: Requests) -> np.ndarray:
    """Times of the requests in seconds since 1970."""
    midnight = np.datetime64(day_date(requests.day), "s").astype(np.int64)
    return midnight + requests.microsecond / 1e6

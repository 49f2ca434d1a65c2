"""The simulated log: requests of users, lists of the policy, clicks and purchases.  [ours]

    p_click   = p_exam * p_click_given_exam,            p_exam = 1 / position
    p_click_given_exam = (eps + (1 - eps) sigmoid((r - T_uq) / s)) * attraction
    T_uq      = clip(t0 + t_u + d_q, 0, 1.1)
    attraction = sigmoid(a0 + quality + price taste + bargain + taste_u . (taste_brand + taste_leaf))
    p_purchase given a click = sigmoid(b0 + b1 (r - T_uq) + b2 markdown)

Policy: `production` orders the pool by a Plackett-Luce draw, weights exp(coarse / temperature); `explore` orders it
uniformly. The first ten items are shown. `propensity` is the exact probability, under the policy of the request and
given the items above, that this item is at this position; their product is the probability of the list. For `explore`
it is 1 / (pool - position + 1), and every item of the pool is shown with probability shown / pool.
"""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import expit

from prectr.data.marketplace import constants, randomness
from prectr.data.marketplace.catalogue import Floats, Ints, Listings
from prectr.data.marketplace.queries import TYPED_SHARES, Searches
from prectr.data.marketplace.randomness import pair_uniform
from prectr.data.marketplace.retrieval import Pools
from prectr.data.marketplace.users import Users

DAY_MICROSECONDS = 86_400_000_000
MARKDOWN_SALT = 3
RELEVANCE_SOURCES = ("lexical", "judgment")  # origin of the true relevance on a real catalogue


@dataclass(frozen=True)
class World:
    """Everything that does not change during the log."""

    seed: int
    items: Listings
    queries: Searches
    users: Users
    pools: Pools
    brand_taste: npt.NDArray[np.float32]  # (B + 1, TASTE_DIMENSIONS); the last row, for brand -1, is zero
    leaf_taste: npt.NDArray[np.float32]  # (L + 1, TASTE_DIMENSIONS); the same for leaf -1


@dataclass(frozen=True)
class Requests:
    """n requests of one day in time order."""

    day: int
    number: Ints  # within the day, from 0
    user: Ints
    query: Ints
    typed: Ints  # row of `queries.typed`
    microsecond: npt.NDArray[np.int64]  # within the day
    explore: npt.NDArray[np.bool_]
    keeps_candidates: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.user)

    def part(self, start: int, stop: int) -> "Requests":
        """Requests `start` (included) to `stop` (excluded)."""
        return Requests(
            day=self.day,
            number=self.number[start:stop],
            user=self.user[start:stop],
            query=self.query[start:stop],
            typed=self.typed[start:stop],
            microsecond=self.microsecond[start:stop],
            explore=self.explore[start:stop],
            keeps_candidates=self.keeps_candidates[start:stop],
        )


@dataclass(frozen=True)
class Simulated:
    """Tables of one part of a day, and figures for the statistics."""

    impressions: pa.Table
    impressions_truth: pa.Table
    candidates: pa.Table
    candidates_truth: pa.Table
    shown_query: Ints  # (rows,)
    shown_slot: Ints  # (rows,) slot in the query's pool
    shown_grade: npt.NDArray[np.int8]
    clicks: int
    purchases: int
    expected_clicks: float
    explored_requests: int


def make_world(
    seed: int, items: Listings, queries: Searches, users: Users, pools: Pools, brands: int, leaves: int
) -> World:
    """Make a world: draw the tastes to which `brands` brands and `leaves` categories appeal."""
    rng = randomness.stream(seed, randomness.LOG)
    brand = rng.standard_normal((brands + 1, constants.TASTE_DIMENSIONS), np.float32)
    leaf = rng.standard_normal((leaves + 1, constants.TASTE_DIMENSIONS), np.float32)
    brand[-1] = leaf[-1] = 0.0
    scale = np.float32(np.sqrt(constants.TASTE_DIMENSIONS))
    return World(seed, items, queries, users, pools, brand / scale, leaf / scale)


def draw_requests(world: World, day: int, size: int) -> Requests:
    """Draw the requests of one day: arrived users by activity, queries by popularity and favourite category."""
    rng = randomness.stream(world.seed, randomness.LOG, 1, day)
    user = randomness.draw(rng, np.where(world.users.arrival <= day, world.users.activity, 0.0), size)
    query = randomness.draw(rng, world.queries.popularity, size)
    query_top = world.queries.top
    favourite = world.users.favourite_tops[user, (rng.random(size) < 0.35).astype(int)]
    request_top = np.where(rng.random(size) < constants.FAVOURITE_QUERY, favourite, -1)
    for top in np.unique(query_top[query_top >= 0]):
        rows = np.flatnonzero(request_top == top)
        query[rows] = randomness.draw(rng, np.where(query_top == top, world.queries.popularity, 0.0), len(rows))
    # Strictly inside the day, with more requests towards the evening.
    moment = (rng.beta(2.4, 1.6, size) * (DAY_MICROSECONDS - 2)).astype(np.int64) + 1
    return Requests(
        day=day,
        number=np.arange(size, dtype=np.int32),
        user=user.astype(np.int32),
        query=query.astype(np.int32),
        typed=(4 * query + randomness.draw(rng, TYPED_SHARES, size)).astype(np.int32),
        microsecond=np.sort(moment),
        explore=rng.random(size) < constants.EXPLORE_SHARE,
        keeps_candidates=rng.random(size) < constants.CANDIDATE_REQUESTS,
    )


def simulate_part(world: World, requests: Requests, part: int) -> Simulated:
    """Simulate some requests of a day. `part`, their number within the day, seeds the draws."""
    rng = randomness.stream(world.seed, randomness.LOG, 2, requests.day, part)
    pools = world.pools
    order, propensity = logging_order(world, requests, rng)
    present = np.take_along_axis(pools.item[requests.query], order, axis=1) >= 0

    shown = show(world, requests, order)
    clicked, bought = shown.draw(rng)
    row = shown.row
    head = request_columns(world, requests, row)
    item_ids = world.items.ids.take(pa.array(shown.met.item))
    impressions = pa.table(
        {
            **head,
            "item_id": item_ids,
            "position": shown.position,
            "clicked": clicked,
            "purchased": bought,
            "policy": pa.array(["production", "explore"]).take(pa.array(requests.explore[row].astype(np.int8))),
            "propensity": propensity[row, shown.position - 1].astype(np.float64),
            "price": pa.array(shown.price, from_pandas=True),
        }
    )
    truth = {"request_id": head["request_id"], "item_id": item_ids, "p_exam": shown.p_exam, **shown.met.truth()}
    truth["p_click"] = shown.p_click

    # Some requests keep a uniform sample of at most CANDIDATES_KEPT items of their pool that were not shown.
    lottery = rng.random(order.shape)
    lottery[~present | ~requests.keeps_candidates[:, None]] = np.inf
    lottery[:, : constants.SHOWN] = np.inf
    drawn = np.argsort(lottery, axis=1, kind="stable")[:, : constants.CANDIDATES_KEPT].astype(np.int32)
    kept_row, kept_place = np.nonzero(np.isfinite(np.take_along_axis(lottery, drawn, axis=1)))
    candidates = _interactions(world, requests, kept_row.astype(np.int32), order[kept_row, drawn[kept_row, kept_place]])
    kept_head = request_columns(world, requests, kept_row)
    kept_ids = world.items.ids.take(pa.array(candidates.item))
    return Simulated(
        impressions=impressions,
        impressions_truth=pa.table(truth),
        candidates=pa.table({**kept_head, "item_id": kept_ids}),
        candidates_truth=pa.table({"request_id": kept_head["request_id"], "item_id": kept_ids, **candidates.truth()}),
        shown_query=requests.query[row],
        shown_slot=shown.slot,
        shown_grade=shown.met.grade,
        clicks=int(clicked.sum()),
        purchases=int(bought.sum()),
        expected_clicks=float(shown.p_click.sum()),
        explored_requests=int(requests.explore.sum()),
    )


def logging_order(
    world: World, requests: Requests, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Order the pool of every request by the logging policy.

    Returns:
        Slots of the pool in their new order (n, POOL), padding last; and propensities of the first SHOWN.
    """
    score = world.pools.score[requests.query] / np.float32(constants.TEMPERATURE)
    logits = np.where(requests.explore[:, None] & np.isfinite(score), np.float32(0.0), score)
    # Sorting by logits plus Gumbel noise draws from Plackett-Luce.
    order = np.argsort(-(logits + rng.gumbel(size=score.shape)), axis=1, kind="stable").astype(np.int32)
    return order, place_propensities(np.take_along_axis(logits, order, axis=1), constants.SHOWN)


def place_propensities(ordered_logits: npt.NDArray[np.float32], shown: int) -> Floats:
    """Plackett-Luce probability of each item at its position, given those above it.

    `ordered_logits` (n, pool) are in the order of the list, -inf in the padding. Returns (n, min(shown, pool)).
    """
    weights = np.exp(ordered_logits.astype(np.float64) - ordered_logits.max(axis=1, keepdims=True))
    remaining = np.cumsum(weights[:, ::-1], axis=1)[:, ::-1]
    with np.errstate(invalid="ignore"):  # 0 / 0 occurs in the padding only, which is dropped
        return (weights / remaining)[:, :shown]


@dataclass(frozen=True)
class Interactions:
    """Probabilities and their parts if these users examine these items; all arrays (rows,)."""

    item: Ints
    grade: npt.NDArray[np.int8]
    r: Floats
    threshold: Floats
    markdown: Floats
    attraction: Floats
    p_click_given_exam: Floats
    judged: npt.NDArray[np.bool_] | None  # as in the pools

    def truth(self) -> dict[str, npt.NDArray[np.generic] | pa.Array]:
        """The columns of the truth tables."""
        names = ("r", "grade", "threshold", "attraction", "p_click_given_exam")
        columns = {name: getattr(self, name) for name in names}
        if self.judged is not None:
            columns["relevance_source"] = pa.array(RELEVANCE_SOURCES).take(pa.array(self.judged.astype(np.int8)))
        return columns


@dataclass(frozen=True)
class Shown:
    """Impressions of some requests with click and purchase probabilities; all (rows,), by request and position."""

    row: Ints  # row number of the request
    slot: Ints  # slot in the query's pool
    position: Ints  # from 1
    price: Floats  # at exposure; NaN where the item has none
    p_exam: Floats
    p_click: Floats
    p_purchase: Floats  # given a click
    met: Interactions

    def draw(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Draw which impressions are clicked and which are bought."""
        clicked = rng.random(len(self.row)) < self.p_click
        return clicked, clicked & (rng.random(len(self.row)) < self.p_purchase)


def show(world: World, requests: Requests, order: npt.NDArray[np.int32]) -> Shown:
    """Show the first SHOWN items of each request's ordered pool.

    Args:
        world: the world with the pools.
        requests: n requests.
        order: (n, POOL) slots of the pools in the order of the list, padding last.
    """
    first = order[:, : constants.SHOWN]
    row, index = np.nonzero(np.take_along_axis(world.pools.item[requests.query], first, axis=1) >= 0)
    slot = first[row, index]
    met = _interactions(world, requests, row.astype(np.int32), slot)
    position = (index + 1).astype(np.int32)
    p_exam = 1.0 / position
    return Shown(
        row=row.astype(np.int32),
        slot=slot,
        position=position,
        price=np.round(world.items.price[met.item] * (1.0 - met.markdown), 2),
        p_exam=p_exam,
        p_click=p_exam * met.p_click_given_exam,
        p_purchase=expit(
            constants.PURCHASE_BASE
            + constants.PURCHASE_RELEVANCE * (met.r - met.threshold)
            + constants.PURCHASE_BARGAIN * met.markdown
        ),
        met=met,
    )


def _interactions(world: World, requests: Requests, row: Ints, slot: Ints) -> Interactions:
    items, users = world.items, world.users
    query, user = requests.query[row], requests.user[row]
    item = world.pools.item[query, slot]
    r = world.pools.r[query, slot].astype(np.float64)
    threshold = np.clip(
        constants.TOLERANCE_BASE + users.tolerance[user] + world.queries.tolerance[query], *constants.THRESHOLD_RANGE
    )
    lottery = pair_uniform(item, np.full(1, requests.day), MARKDOWN_SALT)
    markdown = np.where(
        (lottery < constants.MARKDOWN_SHARE) & items.may_discount[item],
        constants.MARKDOWN_MOST * lottery / constants.MARKDOWN_SHARE,
        0.0,
    )
    distance = np.abs(items.price_rank[item] - users.price_preference[user])
    appeal = world.brand_taste[items.brand[item]] + world.leaf_taste[items.leaf[item]]
    attraction = expit(
        constants.ATTRACTION_BASE
        + constants.ATTRACTION_QUALITY * items.quality[item]
        + constants.ATTRACTION_PRICE * np.nan_to_num(0.5 - 2.0 * distance, nan=0.0)
        + constants.ATTRACTION_BARGAIN * markdown
        + constants.ATTRACTION_TASTE * np.einsum("ij,ij->i", users.taste[user], appeal)
    )
    accepted = expit((r - threshold) / constants.ACCEPTANCE_SLOPE)
    floor = constants.ACCEPTANCE_FLOOR
    return Interactions(
        item=item,
        grade=world.pools.grade[query, slot],
        r=r,
        threshold=threshold,
        markdown=markdown,
        attraction=attraction,
        p_click_given_exam=(floor + (1.0 - floor) * accepted) * attraction,
        judged=None if world.pools.judged is None else world.pools.judged[query, slot],
    )


def _request_ids(requests: Requests) -> pa.Array:
    numbers = pc.utf8_lpad(pc.cast(pa.array(requests.number), pa.string()), width=7, padding="0")
    return pc.binary_join_element_wise(pa.scalar(f"r{requests.day:03d}"), numbers, "-")


def request_columns(world: World, requests: Requests, row: npt.NDArray[np.integer]) -> dict[str, pa.Array]:
    """Canonical columns that all rows of a request share; `row` (m,) are the request of each row."""
    rows = pa.array(row)
    midnight = np.datetime64(day_date(requests.day), "us").astype(np.int64)
    return {
        "request_id": _request_ids(requests).take(rows),
        "user_id": world.users.ids.take(pa.array(requests.user[row])),
        "ts": pa.array(midnight + requests.microsecond[row]).cast(pa.timestamp("us", tz="UTC")),
        "query": world.queries.typed.take(pa.array(requests.typed[row])),
    }


def day_date(day: int) -> date:
    """Calendar date of day number `day`, from 0."""
    return constants.FIRST_DAY + timedelta(days=day)

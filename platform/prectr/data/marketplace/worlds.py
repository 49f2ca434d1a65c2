"""A marketplace before its log: the world, the catalogue, the queries and their judgments.

This module makes the invented marketplace; `real_catalogue` makes one on a real catalogue. The same code simulates the
log of both.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from prectr.data.marketplace import constants, randomness
from prectr.data.marketplace.catalogue import Catalogue, Ints, items_table, make_catalogue, taxonomy
from prectr.data.marketplace.config import SCALES, MarketplaceConfig, Scale
from prectr.data.marketplace.log import World, make_world
from prectr.data.marketplace.queries import Queries, make_queries
from prectr.data.marketplace.relevance import grade_pairs
from prectr.data.marketplace.retrieval import Pools, retrieve
from prectr.data.marketplace.users import make_users


@dataclass(frozen=True)
class Marketplace:
    """A world and its tables, without the log."""

    world: World
    sizes: Scale
    items: pa.Table
    """The canonical `items.parquet`."""
    queries_truth: pa.Table
    """`truth/queries.parquet`."""
    judgments: Callable[[npt.NDArray[np.int64]], pa.Table]
    """Makes the canonical `judgments.parquet` from the counts (Q, POOL) of how often each slot of a pool was shown."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Further entries of `truth/params.json` besides configuration, sizes and constants."""


def invent(config: MarketplaceConfig) -> Marketplace:
    """Make the invented second-hand marketplace."""
    sizes, tables = config.sizes, taxonomy()
    items = make_catalogue(config.seed, sizes.items)
    queries = make_queries(config.seed, sizes.queries, items, config.placebo)
    tops = int(tables.type_top.max()) + 1
    users = make_users(config.seed, sizes.users, SCALES[config.scale].days, config.placebo, tops)
    pools = retrieve(queries, items)
    brands, leaves = len(tables.brand_names), len(tables.leaf_names)
    return Marketplace(
        world=make_world(config.seed, items, queries, users, pools, brands, leaves),
        sizes=sizes,
        items=items_table(config.seed, items),
        queries_truth=_queries_truth(queries),
        judgments=lambda exposed: _judge(config.seed, queries, items, pools, exposed),
    )


def _queries_truth(queries: Queries) -> pa.Table:
    tables = taxonomy()

    def words(vocabulary: list[str], codes: Ints) -> pa.Array:
        return pa.array([*vocabulary, None], pa.string()).take(pa.array(codes % (len(vocabulary) + 1)))

    return pa.table(
        {
            "query": pa.array(queries.texts),
            "d_q": queries.tolerance,
            "specificity": queries.specificity,
            "popularity": queries.popularity,
            "intent": queries.intent,
            "type": words([names[0] for names in tables.type_names], queries.type),
            "brand": words(tables.brand_names, queries.brand),
            "model": words(tables.model_names, queries.model),
            "colour": queries.colour,
            "spec": queries.spec,
        }
    )


def _judge(seed: int, queries: Queries, items: Catalogue, pools: Pools, exposed: npt.NDArray[np.int64]) -> pa.Table:
    """The canonical `judgments.parquet`: human judgments of some queries, with some wrong grades.

    Each judged query has up to 12 pairs that were shown, 12 pairs of its pool that were not (or any, if all were shown)
    and 6 random items of the same top category. `exposed` (Q, POOL) counts how often each slot of a pool was shown.
    """
    rng = randomness.stream(seed, randomness.JUDGMENTS)
    judged = np.sort(rng.permutation(len(queries))[: round(constants.JUDGED_QUERIES * len(queries))])
    lottery = rng.random((len(judged), constants.POOL))
    lottery[pools.item[judged] < 0] = np.inf
    # Shown pairs first, then the others; within each in the lottery's order.
    shown_first = np.argsort(lottery + 2.0 * (exposed[judged] == 0), axis=1)[:, : constants.JUDGED_EXPOSED]
    np.put_along_axis(lottery, shown_first, np.inf, axis=1)
    hidden_first = np.argsort(lottery + 2.0 * (exposed[judged] > 0), axis=1)[:, : constants.JUDGED_POOL]
    from_pool = np.take_along_axis(pools.item[judged], np.concatenate([shown_first, hidden_first], axis=1), axis=1)

    query_top, item_top = queries.top[judged], taxonomy().type_top[items.type]
    random_items = np.empty((len(judged), constants.JUDGED_RANDOM), np.int32)
    for top in np.unique(query_top):
        rows = np.flatnonzero(query_top == top)
        random_items[rows] = rng.choice(np.flatnonzero(item_top == top), (len(rows), constants.JUDGED_RANDOM))

    item = np.concatenate([from_pool, random_items], axis=1)
    query = np.repeat(judged, item.shape[1])
    pairs = np.unique(np.stack([query, item.ravel()], axis=1)[item.ravel() >= 0], axis=0)
    grade, _ = grade_pairs(queries, items, pairs[:, 0], pairs[:, 1])
    wrong = rng.random(len(pairs)) < constants.JUDGMENT_NOISE
    step = np.where(rng.random(len(pairs)) < 0.5, 1, -1)
    step = np.where(grade == 0, 1, np.where(grade == 3, -1, step))
    return pa.table(
        {
            "query": pa.array(queries.texts).take(pa.array(pairs[:, 0])),
            "item_id": items.ids.take(pa.array(pairs[:, 1])),
            "grade": (grade + wrong * step).astype(np.int8),
            "source": pa.array(np.full(len(pairs), "human")),
        }
    )

"""A marketplace ready to be simulated: its world, and the tables about it that are not the log.

There are two kinds: the invented one of this module, and one on a real catalogue (`real_catalogue`). The log is made by
the same code for both.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from prectr.data.marketplace.catalogue import Ints, items_table, make_catalogue, taxonomy
from prectr.data.marketplace.config import SCALES, MarketplaceConfig, Scale
from prectr.data.marketplace.judgments import judge
from prectr.data.marketplace.log import World, make_world
from prectr.data.marketplace.queries import Queries, make_queries
from prectr.data.marketplace.retrieval import retrieve
from prectr.data.marketplace.users import make_users


@dataclass(frozen=True)
class Marketplace:
    """A world and the tables that describe it."""

    world: World
    sizes: Scale
    items: pa.Table
    """The canonical `items.parquet`."""
    queries_truth: pa.Table
    """`truth/queries.parquet`."""
    judgments: Callable[[npt.NDArray[np.int64]], pa.Table]
    """Makes the canonical `judgments.parquet` from how often each slot of each pool was shown, (Q, POOL)."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """What `truth/params.json` says beyond configuration, sizes and constants."""


def invent(config: MarketplaceConfig) -> Marketplace:
    """The built-in second-hand marketplace."""
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
        judgments=lambda exposed: judge(config.seed, queries, items, pools, exposed),
    )


def _queries_truth(queries: Queries) -> pa.Table:
    tables = taxonomy()

    def named(words: list[str], codes: Ints) -> pa.Array:
        return pa.array([*words, None], pa.string()).take(pa.array(codes % (len(words) + 1)))

    return pa.table(
        {
            "query": pa.array(queries.texts),
            "d_q": queries.tolerance,
            "specificity": queries.specificity,
            "popularity": queries.popularity,
            "intent": queries.intent,
            "type": named([names[0] for names in tables.type_names], queries.type),
            "brand": named(tables.brand_names, queries.brand),
            "model": named(tables.model_names, queries.model),
            "colour": queries.colour,
            "spec": queries.spec,
        }
    )

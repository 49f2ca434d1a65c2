"""Human judgments of some queries: exposed, unexposed and random pairs, with a little label noise."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from prectr.data.marketplace import constants, randomness
from prectr.data.marketplace.catalogue import Catalogue, taxonomy
from prectr.data.marketplace.queries import Queries
from prectr.data.marketplace.relevance import grade_pairs
from prectr.data.marketplace.retrieval import Pools


def judge(seed: int, queries: Queries, items: Catalogue, pools: Pools, exposed: npt.NDArray[np.int64]) -> pa.Table:
    """The canonical `judgments.parquet`. `exposed` (Q, POOL) counts how often each slot of each pool was shown.

    Of each judged query: up to 12 pairs that were shown, 12 of the pool that were not (or, where the log showed all,
    any), and 6 random items of the same top category.
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

    chosen = np.concatenate([from_pool, random_items], axis=1)
    query = np.repeat(judged, chosen.shape[1])
    pairs = np.unique(np.stack([query, chosen.ravel()], axis=1)[chosen.ravel() >= 0], axis=0)
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

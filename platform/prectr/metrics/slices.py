"""Slices of a test day's rows, as boolean masks from the rows' columns.

cold, warm, active             users by their number of earlier requests
head, torso, tail              queries by their share of the training days' impressions
exposed, randomised, unexposed shown rows, shown rows in randomised order, and candidates that were not shown

The bounds are [ours]. Slices of one kind cover all rows and do not overlap, except `randomised`, a part of `exposed`.
"""

import numpy as np
import polars as pl

from prectr.contracts.schema import EXPLORE_POLICY

Masks = dict[str, np.ndarray]
"""Name of a slice -> boolean [n]."""


def user_slices(requests: pl.Series, cold: int = 3, active: int = 10) -> Masks:
    """Slice rows by the number of earlier requests of their user.

    Args:
        requests: [n] earlier requests of the row's user.
        cold: most earlier requests of a cold user.
        active: fewest earlier requests of an active user.

    Raises:
        ValueError: the bounds leave no room for warm users, or a row's requests are null.
    """
    if active <= cold + 1:
        raise ValueError(f"active must be at least {cold + 2} (cold + 2) to leave room for warm users, got {active}.")
    _refuse_null(requests, "number of earlier requests")
    counts = requests.to_numpy()
    return {"cold": counts <= cold, "warm": (counts > cold) & (counts < active), "active": counts >= active}


def query_slices(query: pl.Series, training_query: pl.Series, head: float = 1 / 3, torso: float = 1 / 3) -> Masks:
    """Slice rows by the frequency of their query on the training days.

    Queries are ordered by training impressions, the most frequent first. A query whose impressions begin below the
    share `head` is in the head, one that begins below `head + torso` in the torso. Queries with equal numbers of
    impressions are in the same slice. The rest, and queries without training impressions, are the tail.

    Args:
        query: [n] normalised queries of the rows.
        training_query: [t] normalised query of each impression of the training days.
        head: share of impressions, above 0.
        torso: share of impressions, above 0; the tail has the rest.

    Raises:
        ValueError: the shares are not above 0 or leave nothing to the tail, or a row's query is null.
    """
    if not (head > 0 and torso > 0 and head + torso < 1):
        raise ValueError(f"head and torso must be above 0 with a sum below 1, got {head:g} and {torso:g}.")
    _refuse_null(query, "query")
    by_query = training_query.drop_nulls().alias("query").to_frame().group_by("query").len("impressions")
    by_count = (
        by_query.group_by("impressions").agg(rows=pl.col("impressions").sum()).sort("impressions", descending=True)
    )
    begins = by_count.select("impressions", begins=(pl.col("rows").cum_sum() - pl.col("rows")) / pl.col("rows").sum())
    begin = (
        query.alias("query")
        .to_frame()
        .join(by_query.join(begins, on="impressions"), on="query", how="left", maintain_order="left")["begins"]
        .fill_null(1.0)
        .to_numpy()
    )
    return {"head": begin < head, "torso": (begin >= head) & (begin < head + torso), "tail": begin >= head + torso}


def exposure_slices(exposed: pl.Series, policy: pl.Series) -> Masks:
    """Slice rows by their exposure.

    Args:
        exposed: [n] booleans: the row was shown.
        policy: [n] policy that ordered the row's request, as in the impressions; null is unknown.

    Returns:
        The masks, without `randomised` if no row's policy is known.

    Raises:
        ValueError: a row's `exposed` is null.
    """
    _refuse_null(exposed, "exposure")
    shown = exposed.cast(pl.Boolean).to_numpy()
    masks = {"exposed": shown, "unexposed": ~shown}
    if policy.null_count() < len(policy):
        masks["randomised"] = shown & (policy == EXPLORE_POLICY).fill_null(False).to_numpy()
    return masks


def _refuse_null(column: pl.Series, meaning: str) -> None:
    if column.null_count():
        raise ValueError(f"{column.null_count()} of {len(column)} rows have no {meaning}.")

"""Which rows of a test day each slice holds, as boolean masks from the rows' columns.

cold, warm, active             users by their requests before this one
head, torso, tail              queries by their share of the training days' impressions
exposed, randomised, unexposed shown rows, those of them in randomised order, and candidates that were not shown

Bounds are [ours]. Slices of one kind cover all rows and do not overlap, but for `randomised`, a part of `exposed`.
"""

import numpy as np
import polars as pl

from prectr.contracts.schema import EXPLORE_POLICY

Masks = dict[str, np.ndarray]
"""Boolean [n] by the slice's name."""


def user_slices(requests: pl.Series, cold: int = 3, active: int = 10) -> Masks:
    """Rows by how much is known of their user.

    Args:
        requests: [n] requests of the row's user before this one.
        cold: a user with at most so many is cold.
        active: a user with at least so many is active.

    Raises:
        ValueError: the bounds leave no room for warm users, or a row's requests are null.
    """
    if active <= cold + 1:
        raise ValueError(f"With cold users up to {cold} requests, active ones must begin at {cold + 2} or later.")
    _refuse_null(requests, "requests before it")
    counts = requests.to_numpy()
    return {"cold": counts <= cold, "warm": (counts > cold) & (counts < active), "active": counts >= active}


def query_slices(query: pl.Series, training_query: pl.Series, head: float = 1 / 3, torso: float = 1 / 3) -> Masks:
    """Rows by how frequent their query was.

    Queries are taken from the one with the most training impressions down: those that begin before the share `head` of
    the impressions is reached are the head, then those before `head + torso` the torso. Queries with equally many
    impressions are in the same slice. The rest, and queries that the training days do not have, are the tail.

    Args:
        query: [n] normalised queries of the rows.
        training_query: [t] normalised query of each impression of the training days.
        head: share of impressions, above 0.
        torso: share of impressions; the tail has the rest.

    Raises:
        ValueError: the shares are no shares, or a row's query is null.
    """
    if not (head > 0 and torso > 0 and head + torso < 1):
        raise ValueError(f"head {head:g} and torso {torso:g} must be above 0 and leave something to the tail.")
    _refuse_null(query, "query")
    by_query = training_query.drop_nulls().alias("query").to_frame().group_by("query").len("impressions")
    by_count = (
        by_query.group_by("impressions").agg(rows=pl.col("impressions").sum()).sort("impressions", descending=True)
    )
    begins = by_count.select("impressions", begins=(pl.col("rows").cum_sum() - pl.col("rows")) / pl.col("rows").sum())
    found = (
        query.alias("query")
        .to_frame()
        .join(by_query.join(begins, on="impressions"), on="query", how="left", maintain_order="left")["begins"]
        .fill_null(1.0)
        .to_numpy()
    )
    return {"head": found < head, "torso": (found >= head) & (found < head + torso), "tail": found >= head + torso}


def exposure_slices(exposed: pl.Series, policy: pl.Series) -> Masks:
    """Rows by how they came to be seen.

    Args:
        exposed: [n] booleans: the row was shown.
        policy: [n] the policy that ordered the row's request, as in the impressions; null is unknown.

    Returns:
        The masks; without `randomised` where no row's policy is known.

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
        raise ValueError(f"{column.null_count()} of {len(column)} rows lack their {meaning}.")

"""S_q: what other users did under the same query, as of any day.

A state (query, date) lists at most `limit + 1` behaviours of distinct users, clicked ones first, then the most recent.
One more than is used, because a row's own user is taken out when the list is read, and is in it at most once.
"""

import polars as pl

BEHAVIOUR_SCHEMA = {
    "query": pl.String,
    "date": pl.Date,
    "user_id": pl.String,
    "pair": pl.Int32,
    "clicked": pl.Boolean,
    "ts": pl.Datetime("us", "UTC"),
    "user_group": pl.Int32,
}
_BEST_FIRST = ["query", "clicked", "ts", "user_id", "pair"]
_DESCENDING = [False, True, True, False, False]


def day_behaviours(rows: pl.DataFrame, limit: int) -> pl.DataFrame:
    """One file's best behaviours: for every query one of each user, the `limit + 1` best.

    Args:
        rows: query, date, user_id, pair, clicked, ts, user_group.
        limit: behaviours that a list will hold.
    """
    return _best(rows.select(list(BEHAVIOUR_SCHEMA)), limit)


def behaviour_states(behaviours: pl.DataFrame, limit: int) -> pl.DataFrame:
    """Merge days: the state (query, date) holds the best behaviours of all days up to `date`.

    Returns:
        query, date, and the lists user_id, pair, clicked, ts, user_group (best first).
    """
    states: list[pl.DataFrame] = []
    state = behaviours.clear()
    for day in behaviours["date"].unique().sort():
        today = behaviours.filter(pl.col("date") == day)
        touched = today["query"].unique()
        merged = _best(pl.concat([state.filter(pl.col("query").is_in(touched.implode())), today]), limit)
        state = pl.concat([state.filter(~pl.col("query").is_in(touched.implode())), merged])
        states.append(merged.with_columns(pl.lit(day).alias("date")))
    joined = pl.concat(states) if states else behaviours.clear()
    return joined.group_by("query", "date", maintain_order=True).agg("user_id", "pair", "clicked", "ts", "user_group")


def _best(rows: pl.DataFrame, limit: int) -> pl.DataFrame:
    ordered = rows.sort(_BEST_FIRST, descending=_DESCENDING)
    one_a_user = ordered.unique(["query", "user_id"], keep="first", maintain_order=True)
    return one_a_user.filter(pl.int_range(pl.len()).over("query") <= limit)

"""The SQL side of `mining.py`, a process that imports nothing but DuckDB.

A lookup table holds what a row adds to the sums, for every position, click and relevance on the lattice.
"""

import json
import sys
from pathlib import Path

from _sql import LEVELS, MAX_POSITION, ClickCurve, connect, pair_table

KEYS = {"user": "user_id", "query": "query", "category": "category"}


def run(tables: Path, relevance: Path, parameters: Path, out: Path) -> None:
    """Write `user/`, `query/` and `category/` below `out`."""
    curve = ClickCurve(json.loads(parameters.read_text()))
    database = connect(out)
    database.sql(curve.table())
    database.sql(pair_table(relevance))
    database.sql(f"""
        CREATE TEMP TABLE shown AS
        SELECT user_id, pairs.query, category, date::DATE AS date, clicked, level, relevance,
               least(position, {MAX_POSITION})::INTEGER AS position
        FROM read_parquet('{tables}/impressions/*/*.parquet', hive_partitioning = true) AS log
        JOIN pairs ON pairs.query = lower(trim(log.query)) AND pairs.item_id = log.item_id
        JOIN '{tables}/items.parquet' AS items ON items.item_id = log.item_id""")
    grid = ", ".join(f"sum(g{place})::BIGINT AS grid_{place:02d}" for place in range(len(curve.grid)))
    of_user = "sum(exam)::BIGINT AS examined, count(*) FILTER (clicked) AS clicks"
    by_level = ", ".join(
        f"count(*) FILTER (level = {level}) AS impressions_{level}, "
        f"coalesce(sum(exam) FILTER (level = {level}), 0)::BIGINT AS examined_{level}, "
        f"count(*) FILTER (level = {level} AND clicked) AS clicks_{level}, "
        f"coalesce(sum(debiased) FILTER (level = {level} AND clicked), 0)::BIGINT AS debiased_clicks_{level}"
        for level in range(LEVELS)
    )
    for kind, key in KEYS.items():
        (out / kind).mkdir()
        database.sql(f"""
            COPY (SELECT {key}, date, {grid}, {of_user if kind == "user" else by_level}
                  FROM shown JOIN curve USING (position, clicked, relevance) GROUP BY ALL)
            TO '{out}/{kind}/all.parquet'""")


if __name__ == "__main__":
    run(*map(Path, sys.argv[1:]))

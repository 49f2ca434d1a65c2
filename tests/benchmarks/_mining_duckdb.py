"""The SQL side of `mining.py`, a process that imports nothing but DuckDB.

A lookup table holds what a row adds to the sums, for every position, click and relevance on the lattice.
"""

import json
import sys
from pathlib import Path

from _sql import connect

# As `prectr.preferences.tolerance` and `prectr.model_config` have them, which this process does not import.
UNIT, LATTICE, MAX_POSITION, LEVELS = 2**20, 200, 64, 4
KEYS = {"user": "user_id", "query": "query", "category": "category"}


def run(tables: Path, relevance: Path, parameters: Path, out: Path) -> None:
    """Write `user/`, `query/` and `category/` below `out`."""
    fitted = json.loads(parameters.read_text())
    ceiling, softness, floor = (fitted["click"][name] for name in ("a", "s", "eps"))
    thresholds = fitted["grid"]
    names = [f"grid_{place:02d}" for place in range(len(thresholds))]
    database = connect(out)
    exam = f"power(position, -{fitted['examination']['exponent']!r})"

    def log_likelihood(threshold: float) -> str:
        odds = f"1 + exp(({threshold!r} - relevance / {LATTICE}.0) / {softness!r})"
        probability = f"{exam} * ({floor!r} + {ceiling!r} / ({odds}))"
        return f"round(ln(CASE WHEN clicked THEN {probability} ELSE 1 - {probability} END) * {UNIT})::BIGINT"

    grid = ", ".join(f"{log_likelihood(threshold)} AS {name}" for name, threshold in zip(names, thresholds))
    database.sql(f"""
        CREATE TEMP TABLE curve AS
        SELECT position, clicked, relevance, {grid},
               round({exam} * {UNIT})::BIGINT AS exam, round({UNIT}::DOUBLE * {UNIT} / exam)::BIGINT AS debiased
        FROM range(1, {MAX_POSITION + 1}) AS a(position), (VALUES (true), (false)) AS b(clicked),
             range(0, {LATTICE + 1}) AS c(relevance)""")
    database.sql(f"""
        CREATE TEMP TABLE pairs AS
        SELECT query, item_id, round(expected * {LATTICE})::INTEGER AS relevance,
               CASE WHEN level_0 >= greatest(level_1, level_2, level_3) THEN 0
                    WHEN level_1 >= greatest(level_2, level_3) THEN 1
                    WHEN level_2 >= level_3 THEN 2 ELSE 3 END::TINYINT AS level
        FROM '{relevance}/pairs/*.parquet'""")
    # On these logs trimming and lower case are the whole of the normal form.
    database.sql(f"""
        CREATE TEMP TABLE shown AS
        SELECT user_id, pairs.query, category, date::DATE AS date, clicked, level, relevance,
               least(position, {MAX_POSITION})::INTEGER AS position
        FROM read_parquet('{tables}/impressions/*/*.parquet', hive_partitioning = true) AS log
        JOIN pairs ON pairs.query = lower(trim(log.query)) AND pairs.item_id = log.item_id
        JOIN '{tables}/items.parquet' AS items ON items.item_id = log.item_id""")
    sums = ", ".join(f"sum({name})::BIGINT AS {name}" for name in names)
    of_user = "sum(exam)::BIGINT AS examined, count(*) FILTER (clicked) AS clicks"
    by_level = ", ".join(
        f"count(*) FILTER (level = {level}) AS impressions_{level}, "
        f"coalesce(sum(exam) FILTER (level = {level}), 0)::BIGINT AS examined_{level}, "
        f"count(*) FILTER (level = {level} AND clicked) AS clicks_{level}, "
        f"coalesce(sum(debiased) FILTER (level = {level} AND clicked), 0)::BIGINT AS debiased_clicks_{level}"
        for level in range(LEVELS)
    )
    for kind, key in KEYS.items():
        made = f"""SELECT {key}, date, {sums}, {of_user if kind == "user" else by_level}
                   FROM shown JOIN curve USING (position, clicked, relevance) GROUP BY ALL"""
        (out / kind).mkdir()
        database.sql(f"COPY ({made}) TO '{out}/{kind}/all.parquet'")


if __name__ == "__main__":
    run(*map(Path, sys.argv[1:]))

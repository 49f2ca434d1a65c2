"""What the SQL sides of the benchmarks share: the connection, and the tables of click curve and pairs.

These processes import nothing but DuckDB, so the constants are repeated here as `prectr.preferences.tolerance` and
`prectr.contracts.model_config` have them. On simulated logs the normal form of a query is its trimmed lower case.
"""

import os
from pathlib import Path

import duckdb

UNIT, LATTICE, MAX_POSITION, LEVELS = 2**20, 200, 64, 4


def connect(scratch: Path) -> duckdb.DuckDBPyConnection:
    """A database in memory, with all cores and 6 GB, that spills below `scratch`."""
    database = duckdb.connect()
    database.sql(f"SET threads = {os.cpu_count()}")
    database.sql("SET memory_limit = '6GB'")
    database.sql(f"SET temp_directory = '{scratch}/.spilled'")
    database.sql("SET preserve_insertion_order = false")
    return database


class ClickCurve:
    """The fitted click curve in SQL.

    Attributes:
        grid: the thresholds.
        exam: exam(pos) of the column `position`.
    """

    def __init__(self, fitted: dict) -> None:
        """`fitted` is what `parameters.json` holds."""
        self._ceiling, self._softness, self._floor = (fitted["click"][name] for name in ("a", "s", "eps"))
        self.grid: list[float] = fitted["grid"]
        self.exam = f"power(position, -{fitted['examination']['exponent']!r})"

    def acceptance(self, relevance: str, place: int) -> str:
        """Click probability given examination at a place of the grid."""
        odds = f"1 + exp(({self.grid[place]!r} - {relevance}) / {self._softness!r})"
        return f"({self._floor!r} + {self._ceiling!r} / ({odds}))"

    def table(self) -> str:
        """Make `curve`: by position, click and relevance on the lattice, what a row adds to the grid: g0, g1, .."""
        columns = ", ".join(f"{self._log_likelihood(place)} AS g{place}" for place in range(len(self.grid)))
        return f"""CREATE TEMP TABLE curve AS
            SELECT position, clicked, relevance, {columns}, round({self.exam} * {UNIT})::BIGINT AS exam,
                   round({UNIT}::DOUBLE * {UNIT} / exam)::BIGINT AS debiased
            FROM range(1, {MAX_POSITION + 1}) AS a(position), (VALUES (true), (false)) AS b(clicked),
                 range(0, {LATTICE + 1}) AS c(relevance)"""

    def _log_likelihood(self, place: int) -> str:
        probability = f"{self.exam} * {self.acceptance(f'relevance / {LATTICE}.0', place)}"
        return f"round(ln(CASE WHEN clicked THEN {probability} ELSE 1 - {probability} END) * {UNIT})::BIGINT"


def pair_table(relevance: Path, columns: str = "") -> str:
    """Make `pairs`: query, item_id, relevance on the lattice, most probable level, and more columns."""
    return f"""CREATE TEMP TABLE pairs AS
        SELECT query, item_id, round(expected * {LATTICE})::INTEGER AS relevance,
               CASE WHEN level_0 >= greatest(level_1, level_2, level_3) THEN 0
                    WHEN level_1 >= greatest(level_2, level_3) THEN 1
                    WHEN level_2 >= level_3 THEN 2 ELSE 3 END::TINYINT AS level {columns}
        FROM '{relevance}/pairs/*.parquet'"""

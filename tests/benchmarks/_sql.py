"""The DuckDB that benchmarks compare with: all cores of the machine, 6 GB, what does not fit beside its results."""

import os
from pathlib import Path

import duckdb


def connect(scratch: Path) -> duckdb.DuckDBPyConnection:
    """A database in memory that spills below `scratch`."""
    database = duckdb.connect()
    database.sql(f"SET threads = {os.cpu_count()}")
    database.sql("SET memory_limit = '6GB'")
    database.sql(f"SET temp_directory = '{scratch}/.spilled'")
    database.sql("SET preserve_insertion_order = false")
    return database

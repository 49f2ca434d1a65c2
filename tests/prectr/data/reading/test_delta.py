"""Delta Lake tables as sources: appended, deleted from, partitioned, at the newest version or a stated one."""

from datetime import UTC, datetime
from pathlib import Path

import deltalake
import polars as pl
import pytest

from prectr.core.artifacts import StageResult
from prectr.core.errors import UsageError
from prectr.data.config import ValidateConfig
from prectr.data.importers.config import ImportConfig
from prectr.data.importers.import_tables import import_tables
from prectr.data.importers.mapping import open_mapping
from prectr.data.validate import validate_tables

MAPPING = """
files:
  items: items.csv
  impressions: {{path: log, format: delta{more}}}
columns:
  items: {{item_id: item_id, title: title}}
  impressions: {{request_id: request_id, user_id: user_id, ts: ts, query: query, item_id: item_id, position: position,
    clicked: clicked}}
"""


def impressions(day: int, requests: int) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "request_id": f"{day:02}-{request}",
                "user_id": "u1",
                "ts": datetime(2026, 3, day, request, tzinfo=UTC),
                "query": "lamp",
                "item_id": f"i{position}",
                "position": position,
                "clicked": position == 1,
                "country": "de" if request % 2 else "at",
            }
            for request in range(requests)
            for position in (1, 2)
        ]
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    pl.DataFrame({"item_id": ["i1", "i2"], "title": ["red lamp", "blue lamp"]}).write_csv(folder / "items.csv")
    return folder


def published(result: StageResult) -> pl.DataFrame:
    return pl.read_parquet(result.path / "impressions" / "**" / "*.parquet").sort("ts", "position")


def validated(log: Path, tmp_path: Path) -> StageResult:
    return validate_tables(log, tmp_path / "ws" / "tables", ValidateConfig())


def test_the_newest_version_is_read_with_its_partitions_and_without_deleted_rows(log: Path, tmp_path: Path):
    table = log / "impressions"
    for day in (2, 3):
        deltalake.write_deltalake(table, impressions(day, 3).to_arrow(), mode="append", partition_by=["country"])
    deltalake.DeltaTable(table).delete("country = 'de'")
    result = validated(log, tmp_path)
    expected = pl.concat([impressions(2, 3), impressions(3, 3)]).filter(pl.col("country") == "at")
    assert published(result).select(expected.columns).equals(expected.with_columns(pl.col("position").cast(pl.Int32)))
    assert result.manifest["versions_read"] == {"impressions": 2}


def test_a_new_version_is_not_up_to_date_even_if_it_adds_no_file(log: Path, tmp_path: Path):
    table = log / "impressions"
    for day in (2, 3):
        deltalake.write_deltalake(table, impressions(day, 3).to_arrow(), mode="append")
    assert validated(log, tmp_path).manifest["rows"]["impressions"] == 12
    assert validated(log, tmp_path).skipped
    deltalake.DeltaTable(table).delete("ts >= '2026-03-03T00:00:00Z'")
    again = validated(log, tmp_path)
    assert not again.skipped
    assert again.manifest["rows"]["impressions"] == 6
    assert again.manifest["versions_read"] == {"impressions": 2}


def test_a_mapping_may_name_the_version(log: Path, tmp_path: Path):
    for day in (2, 3):
        deltalake.write_deltalake(log / "log", impressions(day, 3).to_arrow(), mode="append")
    for more, rows, version in ((", version: 0", 6, 0), ("", 12, 1)):
        (log / "map.yaml").write_text(MAPPING.format(more=more))
        source = open_mapping(log / "map.yaml", ImportConfig())
        result = import_tables(
            source,
            log / "map.yaml",
            tmp_path / f"ws{version}" / "tables",
            config=ImportConfig(),
            validation=ValidateConfig(),
        )
        assert result.manifest["rows"]["impressions"] == rows
        assert list(result.manifest["versions_read"].values()) == [version]


def test_a_version_that_is_not_there_and_a_damaged_log(log: Path, tmp_path: Path):
    deltalake.write_deltalake(log / "log", impressions(2, 1).to_arrow())
    (log / "map.yaml").write_text(MAPPING.format(more=", version: 7"))
    with pytest.raises(UsageError, match=r"log: cannot be opened as a Delta Lake table of version 7; check"):
        open_mapping(log / "map.yaml", ImportConfig())
    for file in (log / "log" / "_delta_log").glob("*.json"):
        file.write_text("{")
    (log / "map.yaml").write_text(MAPPING.format(more=""))
    with pytest.raises(UsageError, match=r"log: cannot be opened as a Delta Lake table; check its _delta_log"):
        open_mapping(log / "map.yaml", ImportConfig())

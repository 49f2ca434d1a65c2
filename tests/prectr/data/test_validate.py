"""Validation: a message for every kind of bad input; good input stays complete and unchanged."""

import hashlib
import os
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prectr.core.artifacts import StageResult
from prectr.core.errors import PrectrError
from prectr.data.config import ValidateConfig
from prectr.data.tables import Tables
from prectr.data.validate import validate_tables

ALL = ValidateConfig(max_bad_share=1.0)


def _time(day: int, hour: int = 10) -> datetime:
    return datetime(2026, 3, day, hour, tzinfo=UTC)


def _impressions() -> dict[str, list[Any]]:
    """Six requests of two items each, on two days."""
    rows = range(12)
    return {
        "request_id": [f"r{row // 2}" for row in rows],
        "user_id": [f"u{row // 2 % 3}" for row in rows],
        "ts": [_time(1 + row // 6, 10 + row // 2 % 3) for row in rows],
        "query": ["Nokia 3310" if row % 4 < 2 else "phone" for row in rows],
        "item_id": [f"i{row % 2}" for row in rows],
        "position": [1 + row % 2 for row in rows],
        "clicked": [row % 5 == 0 for row in rows],
    }


def _items() -> dict[str, list[Any]]:
    return {
        "item_id": ["i0", "i1"],
        "title": ["Nokia 3310 blue", "phone case"],
        "category": ["phones", "phones > cases"],
        "brand": ["nokia", None],
        "price": [10.0, None],
    }


def _types(**changes: pl.DataType) -> dict[str, pl.DataType]:
    return {"position": pl.Int32(), "ts": pl.Datetime("us", "UTC"), **changes}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A small, faultless log: one unpartitioned file of impressions."""
    source = tmp_path / "log"
    source.mkdir()
    pl.DataFrame(_items()).write_parquet(source / "items.parquet")
    pl.DataFrame(_impressions(), schema_overrides=_types()).write_parquet(source / "impressions.parquet")
    return source


def _validate(source: Path, config: ValidateConfig = ALL) -> StageResult:
    return validate_tables(source, source.parent / "out", config)


def _rewrite(file: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    change(pl.read_parquet(file)).write_parquet(file)


def _fails(source: Path, *expected: str) -> None:
    """The command fails, says all of `expected`, and publishes nothing."""
    with pytest.raises(PrectrError) as caught:
        _validate(source)
    for part in expected:
        assert part in str(caught.value)
    assert not (source.parent / "out").exists()


def _quarantine(source: Path) -> list[tuple[str, int, str]]:
    """File, place (the line in a text file, from 1; else the row, from 0) and reason of each bad row."""
    rows = pl.read_parquet(source.parent / "quarantine" / "rows.parquet")
    assert (rows["line"].is_null() != rows["row"].is_null()).all()
    places = rows.select("file", pl.coalesce("line", "row"), "reason")
    return [(Path(file).name, place, reason) for file, place, reason in places.iter_rows()]


# Good inputs


def test_good_log_is_partitioned_by_date_and_complete(log: Path) -> None:
    result = _validate(log)
    assert result.manifest["rows"] == {"items": 2, "impressions": 12}
    assert not (log.parent / "quarantine").exists()
    tables = Tables(result.path)
    assert tables.days() == [date(2026, 3, 1), date(2026, 3, 2)]
    assert not tables.simulated
    written = tables.impressions(columns=list(_impressions()))
    expected = pl.DataFrame(_impressions(), schema_overrides=_types()).with_columns(pl.col("query").str.to_lowercase())
    assert written.drop("date").sort("ts", "position").equals(expected.sort("ts", "position"))


def test_reading_back_normalises_queries_only_then(log: Path) -> None:
    """The canonical tables keep what people typed."""
    out = _validate(log).path
    assert "Nokia 3310" in pl.read_parquet(out / "impressions" / "*" / "*.parquet")["query"].to_list()
    assert set(Tables(out).impressions()["query"]) == {"nokia 3310", "phone"}


def test_unknown_columns_are_kept(log: Path) -> None:
    _rewrite(log / "items.parquet", lambda rows: rows.with_columns(colour=pl.lit("blue")))
    _rewrite(log / "impressions.parquet", lambda rows: rows.with_columns(page=pl.lit(3)))
    out = _validate(log).path
    assert pl.read_parquet(out / "items.parquet")["colour"].to_list() == ["blue"] * 2
    assert Tables(out).impressions()["page"].to_list() == [3] * 12


def test_wider_spellings_of_types_are_accepted(log: Path) -> None:
    table = pq.read_table(log / "impressions.parquet")
    wide = {"position": pa.int64(), "request_id": pa.large_string(), "item_id": pa.dictionary(pa.int32(), pa.string())}
    paris = pa.timestamp("ms", tz="Europe/Paris")
    for name, kind in {**wide, "ts": paris}.items():
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(kind))
    pq.write_table(table, log / "impressions.parquet")
    out = _validate(log).path
    schema = pq.read_schema(next((out / "impressions").rglob("*.parquet")))
    assert schema.field("position").type == pa.int32()
    assert schema.field("ts").type == pa.timestamp("us", tz="UTC")
    assert pa.types.is_large_string(schema.field("item_id").type) or pa.types.is_string(schema.field("item_id").type)
    assert Tables(out).impressions()["ts"].min() == _time(1)


def test_items_need_neither_brand_nor_price(log: Path) -> None:
    _rewrite(log / "items.parquet", lambda rows: rows.drop("brand", "price"))
    items = Tables(_validate(log).path).items()
    assert items.schema["price"] == pl.Float64 and items["brand"].to_list() == [None, None]


def test_all_null_optional_column_of_no_type_is_accepted(log: Path) -> None:
    _rewrite(log / "impressions.parquet", lambda rows: rows.with_columns(purchased=pl.lit(None)))
    assert Tables(_validate(log).path).impressions()["purchased"].dtype == pl.Boolean


def test_csv_of_every_table(tmp_path: Path) -> None:
    source = tmp_path / "log"
    source.mkdir()
    impressions = pl.DataFrame(_impressions(), schema_overrides=_types()).with_columns(
        ts=pl.col("ts").dt.strftime("%Y-%m-%dT%H:%M:%S") + pl.Series(["Z", "+00:00"] * 6),
        clicked=pl.Series(["1", "0", "true", "False"] * 3),
        price=pl.Series(["9.5", None] * 6),
    )
    impressions.write_csv(source / "impressions.csv")
    pl.DataFrame(_items()).write_csv(source / "items.csv")
    pl.DataFrame({"user_id": ["u0"], "age_band": ["30-39"]}).write_csv(source / "users.csv")
    impressions.select("request_id", "user_id", "ts", "query", item_id=pl.lit("i1")).unique("request_id").write_csv(
        source / "candidates.csv"
    )
    pl.DataFrame({"query": ["phone"], "item_id": ["i0"], "grade": [3]}).write_csv(source / "judgments.csv")
    result = _validate(source)
    assert result.manifest["rows"] == {"items": 2, "users": 1, "impressions": 12, "candidates": 6, "judgments": 1}
    tables = Tables(result.path)
    read = tables.impressions().sort("ts", "position")
    assert read["ts"].to_list() == _impressions()["ts"]
    assert read["clicked"].to_list() == [True, False] * 6
    assert read["price"].to_list() == [9.5, None] * 6
    assert tables.judgments().rows() == [("phone", "i0", 3)]
    assert tables.items()["price"].to_list() == [10.0, None]


def test_csv_times_of_other_zones_become_utc(log: Path) -> None:
    (log / "impressions.parquet").unlink()
    (log / "impressions.csv").write_text(
        "request_id,user_id,ts,query,item_id,position,clicked\n"
        "r0,u0,2026-03-01T00:30:00+02:00,phone,i0,1,1\n"
        "r1,u0,2026-03-01T00:30:00Z,phone,i0,1,0\n"
        "r2,u0,2026-03-01T01:30:00,phone,i0,1,0\n"
    )
    out = _validate(log).path
    found = dict(Tables(out).impressions().select("request_id", "ts").iter_rows())
    assert found == {"r0": datetime(2026, 2, 28, 22, 30, tzinfo=UTC), "r1": datetime(2026, 3, 1, 0, 30, tzinfo=UTC)}
    assert _quarantine(log) == [("impressions.csv", 4, "ts has no time zone")]


def test_folders_with_and_without_dates(log: Path) -> None:
    whole = pl.read_parquet(log / "impressions.parquet")
    (log / "impressions.parquet").unlink()
    for day in (1, 2):
        folder = log / "impressions" / f"date=2026-03-0{day}"
        folder.mkdir(parents=True)
        part = whole.filter(pl.col("ts").dt.day() == day)
        part.head(2).write_parquet(folder / "a.parquet")
        part.slice(2).write_parquet(folder / "b.parquet")
    assert _validate(log).manifest["rows"]["impressions"] == 12


def test_undated_tables_in_dated_folders_lose_nothing(log: Path) -> None:
    """`date=` means nothing to a table that is not partitioned; all its files are one table."""
    items = pl.read_parquet(log / "items.parquet")
    (log / "items.parquet").unlink()
    for day, rows in ((1, items.head(1)), (2, items)):
        (log / "items" / f"date=2026-03-0{day}").mkdir(parents=True)
        rows.write_parquet(log / "items" / f"date=2026-03-0{day}" / "a.parquet")
    manifest = _validate(log).manifest
    assert manifest["rows"]["items"] == 2
    assert Tables(log.parent / "out").items()["item_id"].to_list() == ["i0", "i1"]
    assert manifest["merged"]["items"] == {"the same row again": 1}
    assert not (log.parent / "quarantine").exists()


def test_one_item_with_two_titles_has_the_first_one_by_its_content(log: Path) -> None:
    """Which one does not depend on the order of the files; the other is a bad row."""
    items = pl.read_parquet(log / "items.parquet")
    (log / "items.parquet").unlink()
    (log / "items").mkdir()
    items.write_parquet(log / "items" / "a.parquet")
    _spoil(0, title="Nokia 3310 amber")(items.head(1)).write_parquet(log / "items" / "b.parquet")
    _validate(log)
    assert Tables(log.parent / "out").items()["title"].to_list() == ["Nokia 3310 amber", "phone case"]
    assert _quarantine(log) == [("a.parquet", 0, "duplicate (item_id) with other values")]


def test_users_that_stand_there_twice_count_once(log: Path) -> None:
    (log / "users.csv").write_text("user_id\nu0\nu1\nu0\n")
    manifest = _validate(log).manifest
    assert manifest["rows"]["users"] == 2 and manifest["merged"]["users"] == {"the same row again": 1}


def test_the_same_log_is_skipped(log: Path) -> None:
    _validate(log)
    assert _validate(log).skipped


def test_source_is_untouched_and_may_be_read_only(log: Path) -> None:
    _rewrite(log / "impressions.parquet", lambda rows: pl.concat([rows, rows.head(1)]))
    files = sorted(log.rglob("*"))
    before = [(file.name, file.stat().st_mtime_ns, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files]
    for path in (*files, log):
        os.chmod(path, 0o555 if path.is_dir() else 0o444)
    try:
        _validate(log)
    finally:
        os.chmod(log, 0o755)
    after = [(file.name, file.stat().st_mtime_ns, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files]
    assert before == after and sorted(log.rglob("*")) == files


# Structural faults: nothing is published


def test_missing_column(log: Path) -> None:
    _rewrite(log / "impressions.parquet", lambda rows: rows.drop("position"))
    _fails(log, "impressions.parquet: column 'position' is missing.", "The file has: request_id")


@pytest.mark.parametrize(
    ("column", "content", "found", "wanted"),
    [
        ("position", pl.lit([1]), "list", "int32"),
        ("clicked", pl.lit([True]), "list", "bool"),
        ("query", pl.lit(True), "boolean", "string"),
        ("item_id", pl.struct(pl.lit("i0").alias("id")), "object", "string"),
        ("ts", pl.lit(date(2026, 3, 1)), "timestamp without a time", "timestamp[us, UTC]"),
        ("price", pl.lit(["cheap"]), "list", "double"),
    ],
)
def test_a_type_that_cannot_be_converted(log: Path, column: str, content: pl.Expr, found: str, wanted: str) -> None:
    _rewrite(log / "impressions.parquet", lambda rows: rows.with_columns(content.alias(column)))
    _fails(log, f"impressions.parquet: column '{column}' has the type {found}; wanted: {wanted}")


@pytest.mark.parametrize(
    ("column", "content", "reason"),
    [
        ("position", pl.lit("first"), "position is not int32"),
        ("position", pl.lit(1.5), "position is not int32"),
        ("clicked", pl.lit(2), "clicked is not bool"),
        ("clicked", pl.lit("perhaps"), "clicked is not bool"),
        ("ts", pl.lit("2026-03-01"), "ts is a day without a time and a zone"),
        ("price", pl.lit("cheap"), "price is not double"),
    ],
)
def test_values_that_fit_no_type_are_faults_of_their_rows(
    log: Path, column: str, content: pl.Expr, reason: str
) -> None:
    _rewrite(log / "impressions.parquet", lambda rows: rows.with_columns(content.alias(column)))
    _fails(
        log,
        f"12 of 12 rows of 'impressions' are bad (limit 100.00%), so nothing was written. Most often (12 x): {reason}",
    )


@pytest.mark.parametrize(
    "change",
    [
        {"position": pl.col("position").cast(pl.Float64)},
        {"position": pl.col("position").cast(pl.String)},
        {"clicked": pl.col("clicked").cast(pl.Int32)},
        {"clicked": pl.col("clicked").cast(pl.Float64)},
        {"ts": pl.col("ts").dt.epoch("ms")},
        {"request_id": pl.col("request_id").str.slice(1).cast(pl.Int64)},
        {"query": pl.lit(3310)},
    ],
)
def test_values_that_fit_are_accepted_in_any_type(log: Path, change: dict[str, pl.Expr]) -> None:
    whole = pl.read_parquet(log / "impressions.parquet")
    _rewrite(log / "impressions.parquet", lambda rows: rows.with_columns(**change))
    read = Tables(_validate(log).path).impressions().sort("ts", "request_id", "position")
    expected = whole.sort("ts", "request_id", "position")
    untouched = ["ts", "position", "clicked", "item_id", "user_id"]
    assert read.select(untouched).equals(expected.select(untouched))
    assert read["request_id"].dtype == read["query"].dtype == pl.String


def test_time_without_zone(log: Path) -> None:
    _rewrite(log / "impressions.parquet", lambda rows: rows.with_columns(pl.col("ts").dt.replace_time_zone(None)))
    _fails(
        log,
        "impressions.parquet: column 'ts' has the type timestamp[us, no zone]; wanted: timestamp[us, UTC]",
        "Give each time its zone",
    )


def test_time_without_zone_in_csv(log: Path) -> None:
    whole = pl.read_parquet(log / "impressions.parquet")
    (log / "impressions.parquet").unlink()
    whole.with_columns(pl.col("ts").dt.strftime("%Y-%m-%d %H:%M:%S")).write_csv(log / "impressions.csv")
    _fails(
        log,
        "impressions.csv: 12 of 12 rows",
        "ts has no time zone, such as line 2: ",
        "its zone, e.g. 2026-03-01T10:00",
    )


@pytest.mark.parametrize("name", ["impressions", "items"])
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_empty_table(log: Path, name: str, suffix: str) -> None:
    empty = pl.read_parquet(log / f"{name}.parquet").clear()
    (log / f"{name}.parquet").unlink()
    getattr(empty, f"write_{suffix}")(log / f"{name}.{suffix}")
    _fails(log, f"log: the table '{name}' has no rows. It cannot be empty")


def test_empty_optional_table_may_be_left_out(log: Path) -> None:
    pl.DataFrame(schema={"user_id": pl.String}).write_parquet(log / "users.parquet")
    _fails(log, "the table 'users' has no rows. Leave its files out")


@pytest.mark.parametrize("content", [b"", b"garbage " * 100, b"PAR1" + b"\0" * 64 + b"PAR1"])
def test_unreadable_file(log: Path, content: bytes) -> None:
    (log / "items.parquet").write_bytes(content)
    _fails(
        log, "items.parquet: cannot be read as Parquet (it is damaged, cut off, or of another format)", "Mend the file"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "log: the table 'items' has no rows"),
        (b"\xffgarbage\n\xff,\n", "items.csv: cannot be read as CSV"),
        (b"item_id\0,title\n1,2\n", "items.csv: cannot be read as CSV"),
        (b"item_id,title,item_id\n1,2,3\n", "items.csv: cannot be read as CSV"),
        (b'item_id,title,category\ni0,"never closed', "items.csv: 1 of 1 rows of 'items' are bad"),
    ],
)
def test_unreadable_csv(log: Path, content: bytes, said: str) -> None:
    (log / "items.parquet").unlink()
    (log / "items.csv").write_bytes(content)
    _fails(log, said)


def test_missing_table(log: Path) -> None:
    (log / "items.parquet").unlink()
    _fails(log, "the table 'items' is missing", "items.parquet, items.csv or items/*.parquet", "title string")


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(PrectrError, match=r"nowhere: no such directory; name the one"):
        validate_tables(tmp_path / "nowhere", tmp_path / "out", ALL)


# Faults of single rows: to quarantine


def _spoil(row: int, **values: Any) -> Callable[[pl.DataFrame], pl.DataFrame]:
    def change(rows: pl.DataFrame) -> pl.DataFrame:
        here = pl.int_range(pl.len()) == row
        return rows.with_columns(
            pl.when(here).then(pl.lit(value)).otherwise(pl.col(name)).cast(rows.schema[name]).alias(name)
            for name, value in values.items()
        )

    return change


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"position": 0}, "position is below 1 (positions count from 1)"),
        ({"item_id": "i9"}, "item_id is not in items"),
        ({"query": None}, "query is null"),
        ({"clicked": None}, "clicked is null"),
        ({"query": " "}, "query is blank"),
        ({"user_id": ""}, "user_id is blank"),
    ],
)
def test_bad_row_goes_to_quarantine(log: Path, values: dict[str, Any], reason: str) -> None:
    _rewrite(log / "impressions.parquet", _spoil(1, **values))
    result = _validate(log)
    assert _quarantine(log) == [("impressions.parquet", 1, reason)]
    assert result.manifest["rows"]["impressions"] == 11
    assert result.manifest["quarantined"]["impressions"] == {reason: 1}
    assert Tables(result.path).impressions().height == 11


@pytest.mark.parametrize("values", [{"user_id": "u9"}, {"query": "other"}])
def test_a_request_id_with_two_users_or_queries_is_two_requests(log: Path, values: dict[str, Any]) -> None:
    _rewrite(log / "impressions.parquet", _spoil(1, **values))
    result = _validate(log)
    assert result.manifest["rows"]["impressions"] == 12
    assert result.manifest["request_ids_reused"] == 1
    shown = Tables(result.path).impressions()
    assert shown.filter(pl.col("request_id").str.contains("r0"))["request_id"].sort().to_list() == ["r0", "r0~2"]
    assert shown.group_by("request_id").agg(pl.struct("user_id", "query").n_unique())["user_id"].max() == 1


def test_an_item_twice_in_a_request_is_one_row(log: Path) -> None:
    """With a click if either is clicked, and with the values of the earlier row."""
    _rewrite(log / "impressions.parquet", _spoil(1, item_id="i0", clicked=True))
    _rewrite(log / "impressions.parquet", _spoil(0, clicked=False))
    result = _validate(log)
    assert result.manifest["rows"]["impressions"] == 11
    assert result.manifest["merged"]["impressions"] == {
        "an item again in its request, with other values: those of the earliest row are kept": 1
    }
    row = Tables(result.path).impressions().filter(pl.col("request_id") == "r0")
    assert row.select("item_id", "position", "clicked").rows() == [("i0", 1, True)]


@pytest.mark.parametrize("value", [0.0, 1.5, float("nan"), -1.0])
def test_propensity_is_a_probability(log: Path, value: float) -> None:
    _rewrite(log / "impressions.parquet", lambda rows: _spoil(3, propensity=value)(rows.with_columns(propensity=0.5)))
    _validate(log)
    assert _quarantine(log) == [("impressions.parquet", 3, "propensity is not in (0, 1]")]


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("table", ["items", "impressions"])
def test_prices_are_finite(log: Path, table: str, value: float) -> None:
    def change(rows: pl.DataFrame) -> pl.DataFrame:
        return _spoil(1, price=value)(rows.with_columns(price=pl.lit(2.0)))

    _rewrite(log / f"{table}.parquet", change)
    _validate(log)
    assert (f"{table}.parquet", 1, "price is not a finite number from 0") in _quarantine(log)


def test_position_too_large_for_its_type_is_a_bad_row(log: Path) -> None:
    _rewrite(
        log / "impressions.parquet",
        lambda rows: _spoil(2, position=2**40)(rows.with_columns(pl.col("position").cast(pl.Int64))),
    )
    _validate(log)
    assert _quarantine(log) == [("impressions.parquet", 2, "position is not int32")]


def test_row_on_the_wrong_partition(log: Path) -> None:
    whole = pl.read_parquet(log / "impressions.parquet")
    (log / "impressions.parquet").unlink()
    (log / "impressions" / "date=2026-03-01").mkdir(parents=True)
    late = [_time(2), _time(3), datetime(2026, 2, 28, 23, tzinfo=UTC), datetime(2026, 2, 27, 23, tzinfo=UTC)]
    moved = whole.head(7).with_columns(
        ts=pl.concat([whole["ts"].head(2), pl.Series(late, dtype=pl.Datetime("us", "UTC")), whole["ts"].head(1)])
    )
    moved.write_parquet(log / "impressions" / "date=2026-03-01" / "a.parquet")
    _validate(log)
    reason = "ts is more than a day from the date of its folder"
    assert _quarantine(log) == [("a.parquet", 3, reason), ("a.parquet", 5, reason)]


def test_duplicate_in_another_file_of_the_day(log: Path) -> None:
    whole = pl.read_parquet(log / "impressions.parquet")
    (log / "impressions.parquet").unlink()
    (log / "impressions").mkdir()
    whole.write_parquet(log / "impressions" / "a.parquet")
    whole.slice(4, 1).write_parquet(log / "impressions" / "b.parquet")
    manifest = _validate(log).manifest
    assert manifest["rows"]["impressions"] == 12
    assert manifest["merged"]["impressions"] == {"the same row again": 1}


def test_grades_are_0_to_3(log: Path) -> None:
    judged = {"query": ["phone"] * 5, "item_id": ["i0", "i1", "i9", "i0", "i1"], "grade": [7, 3, 1, 3, -1]}
    pl.DataFrame(judged).write_parquet(log / "judgments.parquet")
    result = _validate(log)
    found = {row: reason for _, row, reason in _quarantine(log)}
    assert found[0] == found[4] == "grade is not one of 0, 1, 2, 3"
    assert found[2] == "item_id is not in items"
    assert Tables(result.path).judgments().rows() == [("phone", "i0", 3), ("phone", "i1", 3)]


def test_items_without_title_and_twice(log: Path) -> None:
    rows = pl.DataFrame(_items())
    pl.concat([rows, rows.head(1), _spoil(0, item_id="i2", title=" ")(rows.head(1))]).write_parquet(
        log / "items.parquet"
    )
    _validate(log)
    assert _quarantine(log) == [("items.parquet", 3, "title is empty")]


def test_good_row_is_kept_where_a_bad_one_has_its_key(log: Path) -> None:
    """A row that is quarantined anyway does not make the next one a duplicate."""
    rows = pl.read_parquet(log / "impressions.parquet")
    pl.concat([_spoil(0, position=0)(rows.head(1)), rows]).write_parquet(log / "impressions.parquet")
    assert _validate(log).manifest["rows"]["impressions"] == 12


def test_quarantined_rows_keep_their_content(log: Path) -> None:
    _rewrite(log / "impressions.parquet", _spoil(1, position=0))
    _validate(log)
    content = pl.read_parquet(log.parent / "quarantine" / "rows.parquet")["content"].str.json_decode(
        pl.Struct({"request_id": pl.String, "position": pl.Int64})
    )
    assert content.to_list() == [{"request_id": "r0", "position": 0}]


def test_too_many_bad_rows_publish_nothing_but_the_quarantine(log: Path) -> None:
    _rewrite(log / "impressions.parquet", _spoil(1, position=0))
    with pytest.raises(PrectrError) as caught:
        _validate(log, ValidateConfig(max_bad_share=0.05))
    assert "1 of 12 rows of 'impressions' are bad (limit 5.00%), so nothing was written" in str(caught.value)
    assert "quarantine/rows.parquet" in str(caught.value)
    assert not (log.parent / "out").exists()
    assert len(_quarantine(log)) == 1


def test_quarantine_of_an_earlier_run_goes_and_other_files_stay(log: Path) -> None:
    good = pl.read_parquet(log / "impressions.parquet")
    _rewrite(log / "impressions.parquet", _spoil(1, position=0))
    aside = log / "quarantine"
    validate_tables(log, log.parent / "out", ALL, quarantine=aside)
    (aside / "notes.txt").write_text("mine")
    assert [file.name for file in sorted(aside.iterdir())] == ["notes.txt", "rows.parquet"]
    good.write_parquet(log / "impressions.parquet")
    validate_tables(log, log.parent / "out", ALL, quarantine=aside)
    assert [file.name for file in aside.iterdir()] == ["notes.txt"]


def test_table_of_bad_rows_only_fails_at_any_limit(log: Path) -> None:
    _rewrite(log / "impressions.parquet", lambda rows: rows.with_columns(position=pl.lit(0, pl.Int32)))
    with pytest.raises(PrectrError, match="12 of 12 rows of 'impressions' are bad"):
        _validate(log)


def test_no_row_is_lost_between_good_and_bad(log: Path) -> None:
    changes = [_spoil(1, position=0), _spoil(4, item_id="i9"), _spoil(7, clicked=None)]
    for change in changes:
        _rewrite(log / "impressions.parquet", change)
    result = _validate(log)
    bad = pl.read_parquet(log.parent / "quarantine" / "rows.parquet")
    kept = Tables(result.path).impressions(columns=["request_id", "item_id"]).height
    assert kept + bad.height == 12 and kept == 9

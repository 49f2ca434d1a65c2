"""The mapping file: the example of the documentation, every conversion of a column, and messages for mistakes."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from jobs import import_log
from prectr.core.artifacts import StageResult
from prectr.core.errors import PrectrError, UsageError
from prectr.data.config import ValidateConfig
from prectr.data.importers.config import ImportConfig
from prectr.data.reading import delimited, json_lines
from prectr.data.tables import Tables

DOCUMENT = Path(__file__).parents[3] / "docs" / "import.md"
EXAMPLE = re.compile(r"`(my-log/[^`]+)`:\n\n```\w+\n(.*?)```", re.DOTALL)


def _run(mapping: Path, bad: float = 0.0, **validation: Any) -> StageResult:
    return import_log.run(
        source="mapping",
        path=mapping,
        out=mapping.parent / "out" / "tables",
        config=ImportConfig(),
        validation=ValidateConfig(max_bad_share=bad, **validation),
    )


def _tables(mapping: Path) -> Tables:
    return Tables(mapping.parent / "out" / "tables")


def test_the_documented_example(tmp_path: Path) -> None:
    for name, content in EXAMPLE.findall(DOCUMENT.read_text(encoding="utf-8")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    mapping = tmp_path / "my-log" / "mapping.yaml"
    manifest = _run(mapping).manifest
    assert manifest["rows"] == {"items": 2, "impressions": 5, "judgments": 2}
    assert manifest["lacks"] == ["the table users", "the table candidates"]
    tables = _tables(mapping)
    assert tables.items().select("item_id", "title", "category", "brand", "price", "colour").rows() == [
        ("A-1", "red running shoes", "Shoes > Running", "Acme", None, "red"),
        ("A-2", "shoe laces", "Shoes > Accessories", None, None, None),
    ]
    names = ["request_id", "ts", "query", "item_id", "position", "clicked", "purchased", "policy", "device"]
    assert tables.impressions().sort("request_id", "position").select(names).rows() == [
        ("s1", datetime(2026, 3, 2, 9, tzinfo=UTC), "red shoes", "A-1", 1, True, True, "production", "phone"),
        ("s1", datetime(2026, 3, 2, 9, tzinfo=UTC), "red shoes", "A-2", 2, False, False, "production", "phone"),
        ("s2", datetime(2026, 3, 2, 22, 59, tzinfo=UTC), "shoe laces", "A-2", 1, True, False, "production", "web"),
        ("s2", datetime(2026, 3, 2, 22, 59, tzinfo=UTC), "shoe laces", "A-1", 2, False, False, "production", "web"),
        ("s3", datetime(2026, 3, 2, 23, 30, tzinfo=UTC), "laces", "A-2", 1, False, False, "production", "phone"),
    ]
    assert [str(day) for day in tables.days()] == ["2026-03-02"]
    assert tables.judgments().rows() == [("red shoes", "A-1", 3), ("red shoes", "A-2", 0)]
    assert _run(mapping).skipped
    with (tmp_path / "my-log" / "ratings.csv").open("a") as ratings:
        ratings.write("laces,A-2,good\n")
    assert not _run(mapping).skipped


IMPRESSION = {
    "request_id": "r",
    "user_id": "u",
    "ts": {"column": "t", "unit": "s"},
    "query": "q",
    "item_id": "i",
    "position": "p",
    "clicked": "c",
}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A mapping of a faultless log of two impressions; tests change it."""
    (tmp_path / "items.csv").write_text("i,name\n1,shoe\n2,lace\n")
    (tmp_path / "log.csv").write_text("r,u,t,q,i,p,c\na,x,1767225600,shoe,1,1,1\na,x,1767225600,shoe,2,2,0\n")
    file = tmp_path / "mapping.yaml"
    _write(file)
    return file


def _write(file: Path, files: dict[str, Any] | None = None, **impression: Any) -> None:
    """Write the mapping with changed files or impression columns."""
    content = {
        "files": {"items": "items.csv", "impressions": "log.csv", **(files or {})},
        "columns": {"items": {"item_id": "i", "title": "name"}, "impressions": {**IMPRESSION, **impression}},
    }
    file.write_text(yaml.safe_dump(content))


NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "meaning"),
    [
        ("1767225600", {"unit": "s"}),
        ("1767225600.0", {"unit": "s"}),
        ("1767225600000", {"unit": "ms"}),
        ("1767225600000000", {"unit": "us"}),
        ("1767225600000000000", {"unit": "ns"}),
        ("2026-01-01T00:00:00Z", {}),
        ("2026-01-01 01:00:00+01:00", {}),
        ("2026-01-01T01:00:00", {"zone": "Europe/Berlin"}),
        ("2026-01-01", {"format": "%Y-%m-%d", "zone": "UTC"}),
        ("1767225600", {}),
        ("20260101-0900", {"format": "%Y%m%d-%H%M", "zone": "Asia/Tokyo"}),
        ("01 Jan 2026 02:00 +0200", {"format": "%d %b %Y %H:%M %z"}),
    ],
)
def test_every_way_to_write_a_time(log: Path, written: str, meaning: dict[str, str]) -> None:
    data = log.parent / "log.csv"
    data.write_text(data.read_text().replace("1767225600", written))
    _write(log, ts={"column": "t", **meaning})
    assert _times(log) == [NEW_YEAR]


def _times(log: Path) -> list[datetime]:
    _run(log)
    return _tables(log).impressions()["ts"].unique().to_list()


@pytest.mark.parametrize(
    ("times", "meaning"),
    [
        (pl.Series([1767225600] * 2, dtype=pl.Int32), {"unit": "s"}),
        (pl.Series([datetime(2026, 1, 1, 1)] * 2, dtype=pl.Datetime("ms")), {"zone": "Europe/Berlin"}),
        (pl.Series([NEW_YEAR] * 2, dtype=pl.Datetime("ns", "UTC")), {}),
        (pl.Series([NEW_YEAR.date()] * 2), {"zone": "UTC"}),
    ],
)
def test_times_of_parquet(log: Path, times: pl.Series, meaning: dict[str, str]) -> None:
    pl.read_csv(log.parent / "log.csv").with_columns(t=times).write_parquet(log.parent / "log.parquet")
    _write(log, {"impressions": "log.parquet"}, ts={"column": "t", **meaning})
    assert _times(log) == [NEW_YEAR]


def test_a_time_that_cannot_be_read_is_its_rows_fault(log: Path) -> None:
    with (log.parent / "log.csv").open("a") as data:
        data.write("b,x,yesterday,shoe,1,1,1\nc,x,99999999999999,shoe,1,1,1\nd,x,,shoe,1,1,1\n")
    _run(log, bad=0.9)
    assert _bad_lines(log) == [(4, "ts is not a number"), (5, "ts is not on the calendar"), (6, "ts is null")]


def _bad_lines(log: Path) -> list[tuple[int, str]]:
    quarantined = pl.read_parquet(log.parent / "out" / "quarantine" / "rows.parquet").sort("line")
    return quarantined.select("line", "reason").rows()


def test_flags_positions_and_constants(log: Path) -> None:
    (log.parent / "log.csv").write_text(
        "r,u,t,q,i,p,c,bought\na,x,0,shoe,1,0,Add to cart,\na,x,0,shoe,2,1,hover,2026-01-01\nb,x,0,shoe,2,0,,\n"
    )
    _write(
        log,
        position={"column": "p", "base": 0},
        clicked={"column": "c", "true_when": ["Add to cart", "click"]},
        purchased={"column": "bought", "true_when": "present"},
        propensity={"constant": 0.5},
    )
    _run(log)
    shown = _tables(log).impressions().sort("request_id", "position")
    assert shown.select("position", "clicked", "purchased", "propensity").rows() == [
        (1, True, False, 0.5),
        (2, False, True, 0.5),
        (1, False, False, 0.5),
    ]


def test_values_that_fit_no_type_are_their_rows_fault(log: Path) -> None:
    with (log.parent / "log.csv").open("a") as data:
        data.write("b,x,0,shoe,1,first,1\nc,x,0,shoe,1,1,maybe\nd,x,0,shoe,1,1.5,1\ne,x,0,,1,1,1\n")
    _run(log, bad=0.9)
    assert _bad_lines(log) == [
        (4, "position is not int32"),
        (5, "clicked is not bool"),
        (6, "position is not int32"),
        (7, "query is null"),
    ]


def test_chunks_and_days_lose_no_row(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a day that lie in several blocks and files meet again, and repeated ones among them count once."""
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 64)
    rows = [f"r{number},x,{1767225600 + number * 20_000},shoe,{1 + number % 2},1,1\n" for number in range(40)]
    (log.parent / "log.csv").unlink()
    folder = log.parent / "logs"
    folder.mkdir()
    for part in range(2):
        (folder / f"{part}.csv").write_text("r,u,t,q,i,p,c\n" + "".join(rows[part::2] + rows[:1] * part))
    _write(log, {"impressions": "logs/*.csv"})
    manifest = _run(log, bad=0.9).manifest
    shown = _tables(log).impressions()
    assert sorted(shown["request_id"]) == sorted(f"r{number}" for number in range(40))
    assert manifest["merged"]["impressions"] == {"the same row again": 1}
    assert shown.height == manifest["rows"]["impressions"] == 40
    assert len(_tables(log).days()) == 10


def test_json_lines_may_leave_out_what_they_do_not_know(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "BLOCK_BYTES", 40)
    (log.parent / "items.jsonl").write_text('{"i": 1, "name": "shoe", "maker": "Acme"}\n{"i": 2, "name": "lace"}\n')
    content = yaml.safe_load(log.read_text())
    content["files"]["items"] = "items.jsonl"
    content["columns"]["items"]["brand"] = "maker"
    log.write_text(yaml.safe_dump(content))
    _run(log)
    assert _tables(log).items()["brand"].to_list() == ["Acme", None]


def test_category_levels_in_columns_of_their_own(log: Path) -> None:
    (log.parent / "items.csv").write_text("i,name,l1,l2\n1,shoe,Shoes,Running\n2,lace,Shoes,\n3,gift,,\n")
    content = yaml.safe_load(log.read_text())
    content["columns"]["items"]["category"] = {"columns": ["l1", "l2"]}
    log.write_text(yaml.safe_dump(content))
    _run(log)
    items = pl.read_parquet(log.parent / "out" / "tables" / "items.parquet")
    assert items["category"].to_list() == ["Shoes > Running", "Shoes", None]


@pytest.mark.parametrize(
    ("impression", "message"),
    [
        ({"querry": "q"}, r"unknown key 'columns.impressions.querry'. Did you mean 'columns.impressions.query'"),
        ({"ts": {"column": "t", "unti": "s"}}, r"Did you mean 'columns.impressions.ts.unit'"),
        ({"ts": {"column": "t", "unit": "hours"}}, r"'columns.impressions.ts.unit': Input should be"),
        ({"ts": {"column": "t", "unit": "s", "zone": "UTC"}}, r"unit is for epoch counts"),
        ({"ts": {"column": "t", "format": "%Y"}}, r"a format needs a zone"),
        ({"ts": {"column": "t", "zone": "Berlin"}}, r"not a time zone"),
        ({"query": {"constant": "a", "column": "q"}}, r"give one of column, constant, not column and constant"),
        ({"query": {}}, r"give one of column, constant"),
        ({"query": None}, r"columns.impressions.query"),
    ],
)
def test_a_mistake_in_the_mapping_is_told_with_file_and_key(
    log: Path, impression: dict[str, Any], message: str
) -> None:
    _write(log, **impression)
    with pytest.raises(UsageError, match=message) as caught:
        _run(log)
    assert str(log) in str(caught.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"impressions": "nothing-*.csv"}, r"files.impressions: no file matches .*nothing-\*\.csv"),
        ({"impressions": "log"}, r"names no format"),
        ({"impressions": {"path": "log.csv", "keep": ["price"]}}, r"keep: 'price' is a canonical column"),
        ({"judgments": "log.csv"}, r"files.judgments is there, but columns.judgments is not"),
        ({"items": None}, r"columns.items is there, but files.items is not"),
    ],
)
def test_a_mistake_about_files(log: Path, files: dict[str, Any], message: str) -> None:
    _write(log, files)
    with pytest.raises(UsageError, match=message):
        _run(log)


def test_grades_off_the_scale(log: Path) -> None:
    content = yaml.safe_load(log.read_text())
    log.write_text(yaml.safe_dump({**content, "grades": {"superb": 4}}))
    with pytest.raises(UsageError, match="'superb' means the grade 4; grades are 0, 1, 2 and 3"):
        _run(log)


def test_a_column_that_the_file_lacks(log: Path) -> None:
    _write(log, query="qq")
    with pytest.raises(
        PrectrError, match=r"log\.csv: column 'qq' is missing\. Did you mean 'q'\? .*r, u, t, q, i, p, c"
    ):
        _run(log)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            "2026-01-01 10:00:00",
            r"log\.csv: 2 of 2 rows .*ts has no time zone, such as line 2: .*ts: {column, zone: UTC}",
        ),
        ("2026-01-01", r"ts is a day without a time and a zone"),
        ("20260101", r"ts is a number that spells a day, .*ts: {column, format: '%Y%m%d', zone: UTC}"),
        ("03-02-2026 10:00", r"03-02-2026 is 3 February 2026 or 2 March 2026\. State how it is written: .*format"),
        ("Thu Jan  1 2026", r"ts is not a time in ISO 8601, .*ts: {column, format, zone}"),
    ],
)
def test_times_that_need_a_word_more(log: Path, written: str, message: str) -> None:
    data = log.parent / "log.csv"
    data.write_text(data.read_text().replace("1767225600", written))
    _write(log, ts="t")
    with pytest.raises(PrectrError, match=message):
        _run(log)


def test_a_file_that_is_not_what_it_is_said_to_be(log: Path) -> None:
    (log.parent / "log.csv").write_bytes("r,u,t,q,i,p,c\na,x,0,schön,1,1,1\n".encode("latin-1"))
    with pytest.raises(PrectrError, match=r"log\.csv: 1 of 1 .* not text in the file's encoding.*`encoding: latin-1`"):
        _run(log)
    _write(log, {"impressions": {"path": "log.csv", "encoding": "latin-1"}})
    _run(log)
    assert _tables(log).impressions()["query"].to_list() == ["schön"]
    _write(log, {"impressions": {"path": "log.csv", "encoding": "latin-17"}})
    with pytest.raises(PrectrError, match=r"log\.csv: .*there is no encoding 'latin-17'"):
        _run(log)
    (log.parent / "log.jsonl").write_text('{"r": "a"\n')
    _write(log, {"impressions": "log.jsonl"})
    with pytest.raises(PrectrError, match=r"log\.jsonl: 1 of 1 .* the line is not a JSON object"):
        _run(log)
    (log.parent / "log.csv").write_text("r,u,t,q,i,p,c\na,x,0,shoe,1,1,1\nb,x,0\n")
    _write(log)
    with pytest.raises(
        PrectrError, match=r"log\.csv: 1 of 2 .*the line has 3 fields, not 7 as the header, .*line 3: b,x,0"
    ):
        _run(log)


def test_a_log_of_no_rows(log: Path) -> None:
    (log.parent / "log.csv").write_text("r,u,t,q,i,p,c\n")
    with pytest.raises(PrectrError, match="the table 'impressions' has no rows"):
        _run(log)


def test_quotes_may_be_ordinary_characters(log: Path) -> None:
    (log.parent / "items.tsv").write_text('i\tname\n1\t"19 inch" rack\n2\t5\' 9" tall\n')
    _write(log, {"items": {"path": "items.tsv", "separator": "\t", "quote": None}})
    _run(log)
    assert _tables(log).items()["title"].to_list() == ['"19 inch" rack', "5' 9\" tall"]


def test_a_catalogue_without_categories_has_empty_ones(log: Path) -> None:
    _run(log)
    assert "category" not in pl.read_parquet(log.parent / "out" / "tables" / "items.parquet").columns
    assert _tables(log).items()["category"].to_list() == ["", ""]

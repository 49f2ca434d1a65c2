"""Which files are read: endings in any case, compressions, folders, and what is named because it is not read."""

from pathlib import Path

import pytest

from prectr.contracts.schema import TABLES
from prectr.core.errors import PrectrError
from prectr.data.config import ValidateConfig
from prectr.data.reading.bad_rows import BadRows
from prectr.data.reading.files import DELTA_LOG, Layout, find_files, find_tables, layout_of
from prectr.data.reading.reader import Reader


@pytest.mark.parametrize(
    ("name", "kind", "compression", "separator"),
    [
        ("a.csv", "csv", None, ","), ("a.CSV", "csv", None, ","), ("a.tsv", "csv", None, "\t"),
        ("a.CSV.GZ", "csv", "gzip", ","), ("a.Tsv.Zst", "csv", "zstd", "\t"), ("a.b.c.csv.gz", "csv", "gzip", ","),
        ("a.jsonl", "jsonl", None, ","), ("a.json.gz", "jsonl", "gzip", ","), ("a.NDJSON", "jsonl", None, ","),
        ("a.Parquet", "parquet", None, ","), ("a.pq", "parquet", None, ","),
    ],
)  # fmt: skip
def test_the_name_says_the_format(name: str, kind: str, compression: str | None, separator: str) -> None:
    layout = layout_of(Path(name))
    assert layout is not None
    assert (layout.format, layout.compression, layout.separator) == (kind, compression, separator)


@pytest.mark.parametrize(
    "name", ["a", "a.txt", "a.csv.bak", "a.parquet.gz", "a.gz", "a.csv.bz2", "a.xlsx", "csv", ".csv"]
)
def test_other_names_say_none(name: str) -> None:
    assert layout_of(Path(name)) is None


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_every_file_is_read_or_named(tmp_path: Path) -> None:
    read = ["items.csv", "impressions.csv", "impressions/date=2026-03-01/a.CSV.gz", "impressions/country=us/x/b.jsonl",
            "impressions/c.pq", "Judgments.TSV"]  # fmt: skip
    odd = [
        "impressions/notes.txt",
        "impressions/d.csv.bak",
        "items.xlsx",
        "other.csv",
        "other/x.csv",
        "README",
        "log.zip",
    ]
    hidden = [".git/x.csv", "_SUCCESS", "impressions/_SUCCESS", "impressions/.part.csv.crc", "impressions/_tmp/x.csv",
              "truth/x.parquet", "quarantine/rows.parquet", "manifest.json"]  # fmt: skip
    _touch(tmp_path, *read, *odd, *hidden)
    found = find_tables(tmp_path, TABLES)
    files = {str(file.relative_to(tmp_path)) for files in found.tables.values() for file, _ in files}
    assert files == set(read) and set(found.tables) == {"items", "impressions", "judgments"}
    assert {str(file.relative_to(tmp_path)) for file in found.not_read} == set(odd)


def test_the_files_of_one_table(tmp_path: Path) -> None:
    _touch(tmp_path, "x/a.csv", "x/y/b.parquet", "x/c.txt", "x/_hidden.csv")
    found = find_files(tmp_path / "x")
    assert [file.name for file, _ in found.tables[""]] == ["a.csv", "b.parquet"]
    assert [file.name for file in found.not_read] == ["c.txt"]
    assert find_files(tmp_path / "x" / "c.txt").tables == {}


def test_a_folder_with_a_delta_log_is_one_table(tmp_path: Path) -> None:
    _touch(tmp_path, f"items/{DELTA_LOG}/0.json", "items/part-0.parquet", f"impressions/us/{DELTA_LOG}/0.json")
    found = find_tables(tmp_path, TABLES)
    assert found.tables["items"] == [(tmp_path / "items", Layout("delta"))]
    assert found.tables["impressions"] == [(tmp_path / "impressions" / "us", Layout("delta"))]
    assert not found.not_read


@pytest.mark.parametrize("name", ["a.txt", "a"])
def test_a_file_of_no_known_ending_is_refused_with_those_that_are(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        PrectrError, match=rf"{name}: its name does not say how it is written; .*\.csv, \.tsv.*\.parquet"
    ):
        list(Reader(BadRows(None), ValidateConfig()).chunks(tmp_path / name, ["a"]))


def test_a_table_is_named_by_all_but_the_endings(tmp_path: Path) -> None:
    """Spark names a directory like a file; a copy beside a table is another name."""
    read = ["items.csv.gz", "impressions.parquet/part-0.parquet", "impressions.parquet/part-1.parquet"]
    odd = ["impressions.bak.csv", "impressions.old/a.csv", "items.2026.csv"]
    _touch(tmp_path, *read, *odd)
    found = find_tables(tmp_path, TABLES)
    assert {str(file.relative_to(tmp_path)) for files in found.tables.values() for file, _ in files} == set(read)
    assert {str(file.relative_to(tmp_path)) for file in found.not_read} == set(odd)

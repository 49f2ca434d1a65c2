"""Every kind of odd file, read by `validate`, `import mapping` and `analyze-experiment` alike."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
import yaml

from prectr.core.errors import PrectrError
from prectr.data import spill
from prectr.data.config import ValidateConfig
from prectr.data.importers.config import ImportConfig
from prectr.data.importers.import_tables import import_tables
from prectr.data.importers.mapping import open_mapping
from prectr.data.reading import delimited, times
from prectr.data.tables import Tables
from prectr.data.validate import validate_tables
from prectr.evaluation.experiments.config import ExperimentConfig
from prectr.evaluation.experiments.exposures import read_experiment

COLUMNS = ["request_id", "user_id", "ts", "query", "item_id", "position", "clicked"]
START = datetime(2026, 3, 2, 9, tzinfo=UTC)
REQUESTS, CLICKS = 40, 20
ROWS = 2 * REQUESTS
INNER_WORDS = ("polars", "pyarrow", "arrow", "Utf8", "i64", "dtype", "Traceback", "SchemaError", "ComputeError")
"""Words of libraries, which no message may hold."""
Row = dict[str, Any]


def log(requests: int = REQUESTS) -> list[Row]:
    """Two rows of each request, over five days; the first item of every second request is clicked."""
    return [
        {
            "request_id": f"r{number:03d}",
            "user_id": f"u{number % 8}",
            "ts": (START + timedelta(hours=min(2.4, 96 / requests) * number)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "query": "blue lamp" if number % 3 else "red lamp",
            "item_id": f"00{item}",
            "position": 1 + item,
            "clicked": int(item == 0 and number % 2 == 0),
        }
        for number in range(requests)
        for item in range(2)
    ]


def as_csv(rows: Sequence[Row], columns: Sequence[str] = COLUMNS, end: str = "\n") -> str:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns, lineterminator=end, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def as_jsonl(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def as_frame(rows: Sequence[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows).with_columns(pl.col("ts").str.to_datetime(time_unit="us", time_zone="UTC"))


@dataclass
class Outcome:
    """What a command read: rows, clicks, and the bad rows as (file, line or row, reason)."""

    rows: int
    clicks: int
    bad: list[tuple[str, int, str]]


class Log:
    """A directory of a log, and the three commands over it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "log" / "impressions"
        self.folder.mkdir(parents=True)
        self.runs = 0
        (root / "log" / "items.csv").write_text("item_id,title,colour\n000,lamp,blue\n001,shade,\n")

    def put(self, name: str, content: str | bytes | pl.DataFrame) -> None:
        """Write a file of impressions."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pl.DataFrame):
            content.write_parquet(self.folder / name)
        else:
            (self.folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    def _out(self) -> Path:
        self.runs += 1
        return self.root / f"out-{self.runs}" / "tables"

    def validate(self, **settings: Any) -> Path:
        out = self._out()
        validate_tables(self.root / "log", out, ValidateConfig(**settings))
        return out

    def imported(self, pattern: str = "**/*.csv", impressions: Row | None = None, **settings: Any) -> Path:
        """By a mapping; `impressions` changes its columns, and `files` in it the settings of the files."""
        out, changes = self._out(), dict(impressions or {})
        files = {"path": f"log/impressions/{pattern}", **changes.pop("files", {})}
        content = {
            "files": {"items": {"path": "log/items.csv", "keep": ["colour"]}, "impressions": files},
            "columns": {
                "items": {"item_id": "item_id", "title": "title"},
                "impressions": {**{name: name for name in COLUMNS}, **changes},
            },
        }
        mapping = self.root / "mapping.yaml"
        mapping.write_text(yaml.safe_dump(content))
        validation = ValidateConfig(**settings)
        import_tables(open_mapping(mapping, ImportConfig()), mapping, out, config=ImportConfig(), validation=validation)
        return out

    def experiment(self, **settings: Any) -> Outcome:
        assignment = self.root / "assignment.csv"
        assignment.write_text("user_id,variant\n" + "".join(f"u{number},{'ab'[number % 2]}\n" for number in range(8)))
        quarantine = self.root / "experiment-quarantine.parquet"
        config = ExperimentConfig(control="a")
        read = read_experiment(self.folder, assignment, None, config, ValidateConfig(**settings), quarantine)
        assert not read.counts["rows_without_assignment"] and read.before is None
        assert len(read.days) < 10, "no day of a wrong clock is a day of the experiment"
        sums = read.until(len(read.days) - 1)
        return Outcome(read.counts["rows_counted"], int(sums["clicks"].sum()), _bad(quarantine))

    def outcomes(self, pattern: str | None = "**/*.csv", **settings: Any) -> dict[str, Outcome]:
        """Of all commands; without a pattern, not of the import."""
        settings = {"max_bad_share": 0.5, **settings}
        found = {"validate": _published(self.validate(**settings)), "experiment": self.experiment(**settings)}
        return found | ({"import": _published(self.imported(pattern, **settings))} if pattern is not None else {})

    def refusals(self, pattern: str | None = "**/*.csv", **settings: Any) -> list[str]:
        """The messages with which all commands refuse the log."""
        messages = []
        runs: list[Callable[[], object]] = [lambda: self.validate(**settings), lambda: self.experiment(**settings)]
        if pattern is not None:
            runs.append(lambda: self.imported(pattern, **settings))
        for run in runs:
            with pytest.raises(PrectrError) as caught:
                run()
            messages.append(str(caught.value))
            assert not any(word in messages[-1].replace(str(self.root), "") for word in INNER_WORDS), messages[-1]
        return messages


def _bad(quarantine: Path) -> list[tuple[str, int, str]]:
    if not quarantine.exists():
        return []
    rows = pl.read_parquet(quarantine).select("file", pl.coalesce("line", "row").alias("place"), "reason")
    return [(Path(file).name, place, reason) for file, place, reason in rows.sort("file", "place").iter_rows()]


def _published(out: Path) -> Outcome:
    shown = Tables(out).impressions()
    return Outcome(shown.height, int(shown["clicked"].sum()), _bad(out.parent / "quarantine" / "rows.parquet"))


@pytest.fixture
def files(tmp_path: Path) -> Log:
    return Log(tmp_path)


def expect(outcomes: dict[str, Outcome], rows: int, clicks: int, bad: list[tuple[str, int, str]]) -> None:
    for command, outcome in outcomes.items():
        assert outcome == Outcome(rows, clicks, bad), command


def _replaced(rows: str, line: int, text: str) -> str:
    """A CSV with another line; lines count from 1."""
    lines = rows.split("\n")
    lines[line - 1] = text
    return "\n".join(lines)


LINE = "r000,u0,2026-03-02T09:00:00Z,{},000,1,1"
"""Line 2 of the log, with its click."""


def test_a_faultless_log(files: Log) -> None:
    files.put("a.csv", as_csv(log()))
    expect(files.outcomes(), ROWS, CLICKS, [])


# Quoting and text


def test_opening_quotes(files: Log) -> None:
    """A query that begins with a quote costs its own line, not those up to the next quote."""
    text = _replaced(as_csv(log()), 2, LINE.format('"blue lamp'))
    files.put("a.csv", _replaced(text, 10, 'r004,u4,2026-03-02T18:36:00Z,"red lamp,000,1,1'))
    for outcome in files.outcomes().values():
        assert (outcome.rows, outcome.clicks) == (ROWS - 2, CLICKS - 2)
        assert [(name, line) for name, line, _ in outcome.bad] == [("a.csv", 2), ("a.csv", 10)]


def test_quotes_that_are_ordinary_characters(files: Log) -> None:
    files.put("a.tsv", as_csv(log()).replace(",", "\t").replace("blue lamp", '"blue lamp'))
    out = files.imported("*.tsv", {"files": {"quote": None}})
    assert _published(out).rows == ROWS
    assert '"blue lamp' in set(Tables(out).impressions()["query"])


def test_text_after_a_closing_quote(files: Log) -> None:
    files.put("a.csv", _replaced(as_csv(log()), 2, LINE.format('"blue" lamp')))
    expect(files.outcomes(), ROWS - 1, CLICKS - 1, [("a.csv", 2, delimited.AFTER_QUOTE)])


def test_separators_and_line_ends_in_a_quoted_field(files: Log) -> None:
    files.put("a.csv", _replaced(as_csv(log()), 2, LINE.format('"blue, lamp\nor, shade"')))
    reasons = [("a.csv", 2, delimited.SEPARATORS_AND_LINE_ENDS), ("a.csv", 3, delimited.IN_BAD_FIELD)]
    expect(files.outcomes(), ROWS - 1, CLICKS - 1, reasons)
    expect(files.outcomes(multiline_fields=True), ROWS, CLICKS, [])
    out = files.validate(multiline_fields=True)
    assert "blue, lamp\nor, shade" in pl.read_parquet(out / "impressions" / "**/*.parquet")["query"].to_list()


@pytest.mark.parametrize("text", ["blue, lamp", "blue\nlamp", "blue\r\nlamp", 'blue ""lamp""'])
def test_either_separators_or_line_ends_in_a_quoted_field(files: Log, text: str) -> None:
    files.put("a.csv", _replaced(as_csv(log()), 2, LINE.format(f'"{text}"')))
    expect(files.outcomes(), ROWS, CLICKS, [])
    for out in (files.validate(), files.imported()):
        queries = pl.read_parquet(out / "impressions" / "**/*.parquet")["query"]
        assert text.replace('""', '"') in queries.to_list()


@pytest.mark.parametrize("shift", range(8))
def test_a_line_end_in_a_quoted_title_across_a_block_border(
    files: Log, monkeypatch: pytest.MonkeyPatch, shift: int
) -> None:
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 64)
    files.put("a.csv", as_csv(log(4)))
    title = "z" * (64 - 30 + shift) + "\r\nB"
    (files.root / "log" / "items.csv").write_bytes(f'item_id,title,colour\r\n000,"{title}",\r\n001,y,\r\n'.encode())
    for out in (files.validate(), files.imported()):
        assert pl.read_parquet(out / "items.parquet")["title"].to_list() == [title, "y"]


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_the_last_line_is_cut(files: Log, cut: int) -> None:
    text = as_csv(log())
    files.put("a.csv", text.rstrip("\n")[:-cut])
    if cut == 1:  # only the value of clicked is gone
        expect(files.outcomes(), ROWS - 1, CLICKS, [("a.csv", ROWS + 1, "clicked is null")])
    else:
        for outcome in files.outcomes().values():
            assert (outcome.rows, outcome.clicks) == (ROWS - 1, CLICKS)
            assert [(name, line) for name, line, _ in outcome.bad] == [("a.csv", ROWS + 1)]


def test_the_last_line_is_cut_inside_a_quoted_field(files: Log) -> None:
    files.put("a.csv", as_csv(log()) + 'r900,u0,2026-03-02T09:00:00Z,"blue la')
    expect(files.outcomes(), ROWS, CLICKS, [("a.csv", ROWS + 2, delimited.UNCLOSED)])


def test_nul_bytes(files: Log) -> None:
    files.put("a.csv", _replaced(as_csv(log()), 2, LINE.format("blue\0lamp")))
    expect(files.outcomes(), ROWS - 1, CLICKS - 1, [("a.csv", 2, delimited.NUL_BYTE)])


def test_a_line_of_another_encoding(files: Log) -> None:
    text = _replaced(as_csv(log()), 2, LINE.format("LAMP")).encode()
    files.put("a.csv", text.replace(b"LAMP", "lämp".encode("latin-1")))
    expect(files.outcomes(), ROWS - 1, CLICKS - 1, [("a.csv", 2, delimited.NOT_TEXT)])
    out = files.imported(impressions={"files": {"encoding": "latin-1"}})
    assert "lämp" in set(Tables(out).impressions()["query"]) and _published(out).rows == ROWS


def test_utf_16_with_its_mark(files: Log) -> None:
    files.put("a.csv", as_csv(log()).replace("blue", "schön").encode("utf-16"))
    expect(files.outcomes(), ROWS, CLICKS, [])
    assert "schön lamp" in set(Tables(files.validate()).impressions()["query"])


# Files


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_compressed_file_that_is_cut(files: Log, kind: str) -> None:
    text = as_csv(log(400)).encode()
    packed = gzip.compress(text) if kind == "gzip" else bytes(pa.Codec("zstd").compress(text, asbytes=True))
    name = "a.csv.gz" if kind == "gzip" else "a.csv.zst"
    for content in (packed[: len(packed) // 2], packed[:5], b"no compressed content at all"):
        files.put(name, content)
        for message in files.refusals("*" + name[1:]):
            assert name in message and "cannot be read as CSV" in message
    files.put(name, packed)
    expect(files.outcomes("*" + name[1:]), 800, 200, [])


@pytest.mark.parametrize(
    "name", ["a.CSV.GZ", "a.csv.gz", "a.Csv", "A.TSV", "a.JSONL.gz", "a.NDJSON", "a.Parquet", "a.PQ"]
)
def test_endings_in_any_case(files: Log, name: str) -> None:
    if "p" in name[-7:].lower():
        files.put(name, as_frame(log()))
    else:
        text = as_jsonl(log()) if "json" in name.lower() else as_csv(log())
        text = text.replace(",", "\t") if "TSV" in name else text
        files.put(name, gzip.compress(text.encode()) if name.lower().endswith("gz") else text)
    expect(files.outcomes(name), ROWS, CLICKS, [])


@pytest.mark.parametrize("empty", [",".join(COLUMNS), ",".join(COLUMNS) + "\n", "", "\n", "a,b\n"])
def test_a_file_of_a_day_without_rows(files: Log, empty: str) -> None:
    files.put("a.csv", as_csv(log()))
    files.put("b.csv", empty)
    files.put("c.csv.gz", gzip.compress(empty.encode()))
    (files.folder / "d.jsonl").write_text("")
    expect(files.outcomes(None), ROWS, CLICKS, [])
    expect({"import": _published(files.imported())}, ROWS, CLICKS, [])


def test_a_parquet_file_of_a_day_without_rows(files: Log) -> None:
    files.put("a.parquet", as_frame(log()))
    files.put("b.parquet", as_frame(log()).clear())
    files.put("c.parquet", pl.DataFrame(schema=dict.fromkeys(COLUMNS, pl.Null)))
    files.put("d.parquet", pl.DataFrame())
    expect(files.outcomes("*.parquet"), ROWS, CLICKS, [])


def test_a_column_of_no_type_is_a_column_of_nulls(files: Log) -> None:
    files.put("a.parquet", as_frame(log()).with_columns(purchased=pl.lit(True), price=pl.lit(2.5)))
    later = [{**row, "request_id": "s" + row["request_id"]} for row in log(4)]
    files.put("b.parquet", as_frame(later).with_columns(price=pl.lit(None), clicked=pl.lit(None)))
    bad = [("b.parquet", row, "clicked is null") for row in range(8)]
    expect(files.outcomes("*.parquet"), ROWS, CLICKS, bad)


def test_files_of_other_columns_orders_and_types(files: Log) -> None:
    rows = log()
    berlin = pl.col("ts").dt.convert_time_zone("Europe/Berlin").cast(pl.Datetime("ms", "Europe/Berlin"))
    files.put(
        "a.parquet", as_frame(rows[:20]).with_columns(price=pl.lit(3), seen=pl.col("ts").dt.replace_time_zone(None))
    )
    files.put("b.parquet", as_frame(rows[20:40]).select(*reversed(COLUMNS), seen="ts", price=pl.lit(2.5)).with_columns(
        berlin, pl.col("position").cast(pl.Float64), clicked=pl.col("clicked") == 1))  # fmt: skip
    files.put("c.parquet", as_frame(rows[40:60]).with_columns(
        pl.col("ts").dt.epoch("ms"), pl.col("position").cast(pl.String), pl.col("query").cast(pl.Categorical),
        seen=pl.lit(None)))  # fmt: skip
    files.put("d.csv", as_csv(rows[60:70], COLUMNS[::-1]))
    files.put("e.jsonl", as_jsonl([*rows[70:75], *({**row, "price": 7} for row in rows[75:])]))
    expect(files.outcomes(None), ROWS, CLICKS, [])
    shown = pl.read_parquet(files.validate() / "impressions" / "**/*.parquet").sort("ts", "position")
    expected = as_frame(rows).sort("ts", "position")
    assert shown["ts"].equals(expected["ts"]) and shown["position"].to_list() == expected["position"].to_list()
    assert shown["price"].drop_nulls().sort().to_list() == [2.5] * 20 + [3.0] * 20 + [7.0] * 5
    assert shown.schema["seen"] == pl.String and shown["seen"].null_count() == 40
    parquet = _published(files.imported("*.parquet"))
    assert (parquet.rows, parquet.bad) == (60, [])
    kept = files.imported("[abc].parquet", {"files": {"keep": ["seen"]}})
    assert pl.read_parquet(kept / "impressions" / "**/*.parquet")["seen"].null_count() == 20


def test_times_of_parquet_without_a_zone(files: Log) -> None:
    rows = log()
    files.put("a.parquet", as_frame(rows[:40]))
    files.put("b.parquet", as_frame(rows[40:]).with_columns(pl.col("ts").dt.replace_time_zone(None)))
    for message in files.refusals("*.parquet"):
        assert "b.parquet" in message and "'ts'" in message and "zone" in message
    zoned = files.imported("*.parquet", {"ts": {"column": "ts", "zone": "UTC"}})
    assert _published(zoned) == Outcome(ROWS, CLICKS, [])


@pytest.mark.parametrize("place", [0, 7, -1])
def test_the_row_that_lacks_a_zone_is_the_bad_row(files: Log, place: int) -> None:
    rows = log()
    rows[place]["ts"] = rows[place]["ts"].replace("Z", "")
    files.put("a.csv", as_csv(rows))
    clicks = CLICKS - rows[place]["clicked"]
    expect(files.outcomes(), ROWS - 1, clicks, [("a.csv", 2 + place % ROWS, f"ts {times.NO_ZONE}")])


@pytest.mark.parametrize(
    "spelling",
    ["%Y-%m-%d %H:%M:%S.582000 UTC", "%Y-%m-%d %H:%M:%S.582+00", "%Y%m%dT%H%M%S+0000", "%s", "%s000", "%s000000"],
)
def test_times_in_usual_spellings(files: Log, spelling: str) -> None:
    rows = log()
    for row in rows:
        moment = datetime.fromisoformat(row["ts"])
        row["ts"] = moment.strftime(spelling.replace("%s", str(int(moment.timestamp()))))
    files.put("a.csv", as_csv(rows))
    expect(files.outcomes(), ROWS, CLICKS, [])


def test_days_of_an_unknown_order(files: Log) -> None:
    rows = log()
    for row in rows:
        row["ts"] = datetime.fromisoformat(row["ts"]).strftime("%m-%d-%Y %H:%M")
    files.put("a.csv", as_csv(rows))
    for message in files.refusals():
        assert "03-02-2026 is 3 February 2026 or 2 March 2026" in message and "format: '%m-%d-%Y'" in message
    out = files.imported(impressions={"ts": {"column": "ts", "format": "%m-%d-%Y %H:%M", "zone": "UTC"}})
    assert [str(day) for day in Tables(out).days()] == [f"2026-03-0{day}" for day in range(2, 7)]


def test_a_list_in_one_file_and_a_text_in_another(files: Log) -> None:
    files.put("a.parquet", as_frame(log()).with_columns(tags=pl.lit(["x"])))
    files.put("b.parquet", as_frame(log(2)).with_columns(tags=pl.lit("x")))
    with pytest.raises(
        PrectrError, match=r"b\.parquet: the column 'tags' is of the type a value, but a list in .*a\.parquet"
    ):
        files.validate()
    with pytest.raises(
        PrectrError, match=r"b\.parquet: the column 'tags' is of the type a value, but a list in .*a\.parquet"
    ):
        files.imported("*.parquet", {"files": {"keep": ["tags"]}})
    assert _published(files.imported("*.parquet")).rows == files.experiment().rows == ROWS, "nobody reads it"
    files.put("b.parquet", as_frame(log(2)).with_columns(query=pl.lit(["x"])))
    for message in files.refusals("*.parquet"):
        assert "b.parquet" in message and ("'query' has the type list" in message or "'tags'" in message)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_leading_zeros_of_ids_stay(files: Log, name: str) -> None:
    rows = [{**row, "request_id": row["request_id"].replace("r", "0"), "user_id": row["user_id"]} for row in log()]
    made: dict[str, Any] = {"a.csv": as_csv(rows), "a.jsonl": as_jsonl(rows), "a.parquet": as_frame(rows)}
    files.put(name, made[name])
    expect(files.outcomes(name), ROWS, CLICKS, [])
    for out in (files.validate(), files.imported(name)):
        shown = Tables(out).impressions()
        assert set(shown["request_id"]) == {f"0{number:03d}" for number in range(REQUESTS)}
        assert set(shown["item_id"]) == {"000", "001"}


def test_ids_that_are_numbers_in_some_files(files: Log) -> None:
    (files.root / "log" / "items.csv").write_text("item_id,title,colour\n10,lamp,blue\n11,shade,\n")
    rows = [{**row, "item_id": 10 + int(row["item_id"]), "request_id": int(row["request_id"][1:])} for row in log()]
    files.put("a.parquet", as_frame(rows[:30]))
    files.put("b.parquet", as_frame(rows[30:]).with_columns(pl.col("item_id", "request_id").cast(pl.String)))
    files.put("c.jsonl", as_jsonl(rows[:30]))  # the same rows again
    expect(files.outcomes(None), ROWS, CLICKS, [])
    expect({"import": _published(files.imported("*.parquet"))}, ROWS, CLICKS, [])


def test_json_lines_with_late_keys_and_broken_lines(files: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = log()
    rows[-1] |= {"price": 3.5, "note": {"x": [1]}}
    lines = as_jsonl(rows).splitlines()
    lines[3:3] = ['{"request_id": "r001", "user', "[1, 2]", "", "null"]
    files.put("a.jsonl", "\n".join(lines))
    reason = "the line is not a JSON object"
    bad = [("a.jsonl", line, reason) for line in (4, 5, 7)]
    expect(files.outcomes("*.jsonl"), ROWS, CLICKS, bad)
    shown = pl.read_parquet(files.validate(max_bad_share=0.1) / "impressions" / "**/*.parquet")
    assert shown["price"].drop_nulls().to_list() == [3.5]


def test_folders_that_name_a_column(files: Log) -> None:
    rows = log()
    files.put("country=us/a.csv", as_csv(rows[:40]))
    files.put("country=de/date=2026-03-05/a.csv", as_csv(rows[60:]))
    files.put("country=de/a.csv", as_csv(rows[40:60]))
    outcomes = files.outcomes()
    assert all(outcome.rows >= ROWS - 20 for outcome in outcomes.values())
    shown = pl.read_parquet(files.validate() / "impressions" / "**/*.parquet", hive_partitioning=False)
    assert dict(shown["country"].value_counts().iter_rows()) == {"us": 40, "de": 40}


def test_folders_above_the_log_name_no_column(tmp_path: Path) -> None:
    files = Log(tmp_path / "run=7")
    files.put("country=us/a.csv", as_csv(log()))
    shown = pl.read_parquet(files.validate() / "impressions" / "**/*.parquet", hive_partitioning=False)
    assert shown.columns[-1] == "country" and "run" not in shown.columns


def test_compressed_parts_one_behind_the_other(files: Log) -> None:
    """As `cat a.gz b.gz` and appending programs write them."""
    head, *lines = as_csv(log()).splitlines(keepends=True)
    files.put("a.csv.gz", b"".join(gzip.compress(part.encode()) for part in (head, *lines)))
    zstd = pa.Codec("zstd")
    files.put("a.csv.zst", b"".join(zstd.compress(part.encode(), asbytes=True) for part in (head, *lines)))
    expect(files.outcomes("*.csv.zst"), ROWS, CLICKS, [])
    expect({"import": _published(files.imported("*.csv.gz"))}, ROWS, CLICKS, [])


def test_files_that_are_not_read_are_named_and_counted(files: Log, capsys: pytest.CaptureFixture[str]) -> None:
    files.put("a.csv", as_csv(log()))
    files.put("b.csv.bak", "x")
    files.put("deep/notes.txt", "x")
    (files.root / "log" / "README.md").write_text("x")
    (files.root / "log" / "clicks.csv").write_text("x")
    out = files.validate()
    printed = capsys.readouterr().err
    assert "not read: 4 files that belong to no table: README.md, clicks.csv, b.csv.bak, notes.txt" in printed
    manifest = json.loads((out / "manifest.json").read_text())
    assert [Path(file).name for file in manifest["not_read"]] == ["README.md", "clicks.csv", "b.csv.bak", "notes.txt"]
    files.experiment()
    printed = capsys.readouterr().err
    assert "not read: 2 files of other kinds: " in printed and "b.csv.bak" in printed and "notes.txt" in printed


def test_a_catalogue_with_judgments_and_no_impressions(files: Log, capsys: pytest.CaptureFixture[str]) -> None:
    files.folder.rmdir()
    with pytest.raises(PrectrError, match="the table 'impressions' is missing"):
        files.validate()
    (files.root / "log" / "judgments.csv").write_text("query,item_id,grade\nlamp,000,3\nlamp,001,1\nlamp,009,1\n")
    out = files.validate(max_bad_share=0.5)
    printed = capsys.readouterr().err
    assert "lacks impressions: it serves train-teacher, select-pairs, label and distill" in printed
    tables = Tables(out)
    assert tables.days() == [] and tables.judgments().rows() == [("lamp", "000", 3), ("lamp", "001", 1)]
    assert _bad(out.parent / "quarantine" / "rows.parquet") == [("judgments.csv", 4, "item_id is not in items")]


# Values


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize("blank", ["", " ", "\t", "\u200b", "\u00a0 "])
def test_blank_ids_are_null(files: Log, name: str, blank: str) -> None:
    rows = log()
    rows[0]["user_id"] = blank
    made: dict[str, Any] = {"a.csv": as_csv(rows), "a.jsonl": as_jsonl(rows), "a.parquet": as_frame(rows)}
    files.put(name, made[name])
    place = 0 if name == "a.parquet" else 1 if name == "a.jsonl" else 2
    reason = "user_id is null" if (blank, name) == ("", "a.csv") else "user_id is blank"
    expect(files.outcomes(name), ROWS - 1, CLICKS - 1, [(name, place, reason)])


@pytest.mark.parametrize("word", ["nan", "NaN", "NULL", r"\N", "None", "<NA>"])
def test_words_for_null_as_ids(files: Log, word: str) -> None:
    rows = log()
    rows[0]["user_id"] = word
    files.put("a.csv", as_csv(rows))
    for outcome in files.outcomes().values():
        assert (outcome.rows, outcome.clicks) == (ROWS - 1, CLICKS - 1)
        (found,) = outcome.bad
        assert found[:2] == ("a.csv", 2) and found[2].startswith("user_id is a word for null (nan, null, ")
    for out in (files.validate(null_ids=[]), files.imported(null_ids=[])):
        assert _published(out).rows == ROWS and word in Tables(out).impressions()["user_id"].to_list()
    for out in (
        files.validate(null_ids=["r000"], max_bad_share=0.5),
        files.imported(null_ids=["r000"], max_bad_share=0.5),
    ):
        assert _published(out).rows == ROWS - 2, "other words are those of the user"


def test_blank_queries_are_null_and_words_for_null_are_text(files: Log) -> None:
    rows = log()
    rows[0]["query"], rows[1]["query"] = "nan", "NULL"
    files.put("a.csv", as_csv(rows))
    (files.root / "log" / "items.csv").write_text("item_id,title,colour\n000,nan,null\n001,None,\n")
    expect(files.outcomes(), ROWS, CLICKS, [])
    for out in (files.validate(), files.imported()):
        assert {"nan", "null"} <= set(Tables(out).impressions()["query"])
        assert pl.read_parquet(out / "items.parquet").select("title", "colour").rows() == [
            ("nan", "null"),
            ("None", None),
        ]
    rows[0]["query"] = " "
    files.put("a.csv", as_csv(rows))
    for out in (files.validate(max_bad_share=0.5), files.imported(max_bad_share=0.5)):
        assert _published(out) == Outcome(ROWS - 1, CLICKS - 1, [("a.csv", 2, "query is blank")])


@pytest.mark.parametrize("ids", [["", ""], [" ", " "], ["nan", "NaN"], [None, None]])
def test_exposures_without_a_request_id_count_each_by_itself(files: Log, ids: list[str | None]) -> None:
    """They are no request, so no two of them are the same row again."""
    rows = log(4)
    for number, value in enumerate(ids):
        rows.append({**rows[0], "request_id": value, "position": 5 + number})
    files.put("a.parquet", as_frame(rows))
    assert files.experiment().rows == 8 + len(ids)


@pytest.mark.parametrize(
    ("moment", "count"),
    [
        ("1970-01-01T00:00:07Z", 1),
        ("2038-01-19T03:14:07Z", 1),
        ("2026-03-15T10:00:00Z", 1),
        ("0", 1),
        ("2038-01-19T03:14:07Z", 60),
    ],
)
def test_clocks_far_from_the_bulk(files: Log, moment: str, count: int) -> None:
    rows = log()
    wrong = [{**rows[0], "request_id": f"w{number}", "ts": moment} for number in range(count)]
    files.put("a.csv", as_csv([*wrong, *rows]))
    reason = "ts is far from the bulk of the log (a wrong clock?)"
    bad = [("a.csv", 2 + number, reason) for number in range(count)]
    expect(files.outcomes(max_bad_share=0.9, far_share=0.05), ROWS, CLICKS, bad)
    if moment.startswith("2026"):  # one of 81 rows is more than 1 %
        assert _published(files.validate()) == Outcome(ROWS + 1, CLICKS + 1, [])
    else:
        expect(files.outcomes(max_bad_share=0.9), ROWS, CLICKS, bad)
    days = Tables(files.validate(max_bad_share=0.9, far_share=0.05)).days()
    assert str(days[0]) == "2026-03-02" and str(days[-1]) == "2026-03-06"


def test_requests_over_midnight_and_over_two_files(files: Log) -> None:
    rows = log()
    for row, ts in zip(rows[:2], ["2026-03-02T23:59:58Z", "2026-03-03T00:00:04Z"], strict=True):
        row |= {"request_id": "m", "ts": ts}
    files.put("a.csv", as_csv(rows[:1] + rows[2:41]))
    files.put("b.csv", as_csv(rows[41:] + rows[1:2]))  # rows 40 and 41 are one request, too
    expect(files.outcomes(), ROWS, CLICKS, [])
    for out in (files.validate(), files.imported()):
        shown = Tables(out).impressions()
        found = shown.filter(pl.col("request_id") == "m")
        assert found["ts"].to_list() == [datetime(2026, 3, 2, 23, 59, 58, tzinfo=UTC)] * 2
        assert [str(day) for day in found["date"].unique()] == ["2026-03-02"]
        assert (shown.group_by("request_id").len()["len"] == 2).all()


def test_ids_that_start_anew_every_day(files: Log) -> None:
    rows = log()
    for number, row in enumerate(rows):
        row |= {"request_id": str(number // 2 % 10), "user_id": f"u{number // 2 % 5}"}  # ten requests a day
        row["query"] = "lamp"
    files.put("a.csv", as_csv(rows))
    expect(files.outcomes(), ROWS, CLICKS, [])
    for out in (files.validate(), files.imported()):
        shown = Tables(out).impressions()
        assert shown.select(pl.struct("request_id", "date").n_unique()).item() == REQUESTS


@pytest.mark.parametrize(("minutes", "requests"), [(31, 2), (29, 1)])
def test_ids_that_start_anew_twice_a_day(files: Log, minutes: int, requests: int) -> None:
    rows = log()
    later = (START + timedelta(minutes=minutes)).strftime("%Y-%m-%d %H:%M:%S+00")
    again = [{**row, "ts": later} for row in rows[:2]]
    files.put("a.csv", as_csv(rows))
    files.put("b.csv", as_csv(again))
    expect(files.outcomes(), ROWS + 2 * (requests - 1), CLICKS + requests - 1, [])
    for out in (files.validate(), files.imported()):
        shown = Tables(out).impressions().filter(pl.col("request_id").str.starts_with("r000"))
        assert shown["request_id"].unique().sort().to_list() == ["r000", "r000~2"][:requests]
    expect(files.outcomes(request_minutes=60), ROWS, CLICKS, [])


def test_a_click_that_is_a_second_row(files: Log) -> None:
    rows = log()
    events = [{**row, "clicked": 0} for row in rows] + [row for row in rows if row["clicked"]]
    files.put("a.csv", as_csv(events))
    expect(files.outcomes(), ROWS, CLICKS, [])
    manifest = json.loads((files.validate() / "manifest.json").read_text())
    assert manifest["merged"]["impressions"] == {
        "an item again in its request, with another clicked or purchased: either counts": CLICKS
    }


def test_rows_that_stand_there_twice(files: Log) -> None:
    files.put("a.csv", as_csv(log()))
    files.put("b.csv", as_csv(log()))
    expect(files.outcomes(), ROWS, CLICKS, [])


def test_a_log_without_clicks(files: Log) -> None:
    files.put("a.csv", as_csv([{**row, "clicked": 0} for row in log()]))
    for run in (files.validate, files.imported):
        with pytest.raises(PrectrError, match="none of 80 impressions is clicked, so nothing was written"):
            run()
        assert _published(run(allow_no_clicks=True)) == Outcome(ROWS, 0, [])


def test_prices_that_come_late_or_change_their_type(files: Log) -> None:
    rows: list[Row] = [{**row, "price": None, "purchased": 0} for row in log(400)]
    rows[-2] |= {"price": 76.54, "purchased": 1}
    rows[-1] |= {"price": 3, "purchased": 1}
    files.put("a.csv", as_csv(rows, [*COLUMNS, "price", "purchased"]))
    expect(files.outcomes(), 800, 200, [])
    assert Tables(files.validate()).impressions()["price"].drop_nulls().sort().to_list() == [3.0, 76.54]


EXTRA: dict[str, pl.Series] = {
    "list": pl.Series([["x"], None, []]),
    "list of floats": pl.Series([[1.0, None], [], None]),
    "array": pl.Series([[1.0, 2.0]] * 3, dtype=pl.Array(pl.Float32, 2)),
    "object": pl.Series([{"a": 1, "b": ["x"]}, {"a": None, "b": None}, None]),
    "binary": pl.Series([b"\xff\0", b"", None]),
    "decimal": pl.Series(["1.50", "2.00", None]).cast(pl.Decimal(10, 2)),
    "date": pl.Series([datetime(2026, 3, 2).date(), None, datetime(1970, 1, 1).date()]),
    "time": pl.Series([datetime(2026, 3, 2, 9).time(), None, None]),
    "duration": pl.Series([timedelta(seconds=1), None, timedelta(days=9)]),
    "naive": pl.Series([datetime(2026, 3, 2, 9), None, None]),
    "category": pl.Series(["x", "y", None], dtype=pl.Categorical),
    "enum": pl.Series(["x", "y", None], dtype=pl.Enum(["x", "y"])),
    "float": pl.Series([float("nan"), float("inf"), None]),
    "uint64": pl.Series([2**64 - 1, 0, None], dtype=pl.UInt64),
    "null": pl.Series([None, None, None]),
    "boolean": pl.Series([True, False, None]),
}


@pytest.mark.parametrize("kind", EXTRA)
@pytest.mark.parametrize("unit", [10**6, 20])
def test_extra_columns_of_any_type_with_rows_that_repeat(
    files: Log, monkeypatch: pytest.MonkeyPatch, kind: str, unit: int
) -> None:
    monkeypatch.setattr(spill, "UNIT_ROWS", unit)
    rows = as_frame(log()).with_columns(EXTRA[kind].gather([number % 3 for number in range(ROWS)]).alias("extra"))
    clicks = rows.filter(pl.col("clicked") == 1).with_columns(EXTRA[kind].gather([1] * CLICKS).alias("extra"))
    files.put("a.parquet", rows.with_columns(clicked=pl.lit(0)))
    files.put("b.parquet", clicks)
    files.put("c.parquet", rows.with_columns(position=pl.lit(0)).head(3))  # bad rows with such a column
    (files.root / "log" / "items.csv").unlink()
    items = pl.DataFrame({"item_id": ["000", "001", "000", "000"], "title": ["a", "b", "a", "c"]})
    items.with_columns(EXTRA[kind].gather([0, 1, 0, 2]).alias("extra")).write_parquet(
        files.root / "log" / "items.parquet"
    )
    out = files.validate(max_bad_share=0.9)
    reason = "position is below 1 (positions count from 1)"
    bad = [("c.parquet", row, reason) for row in range(3)]
    found = _published(out)
    assert (found.rows, found.clicks) == (ROWS, CLICKS) and [row for row in found.bad if row[0] == "c.parquet"] == bad
    shown = pl.read_parquet(out / "impressions" / "**/*.parquet", hive_partitioning=False).sort("ts", "position")
    unclicked = pl.int_range(pl.len()) % 4 == 1  # never repeated
    if kind != "null":
        assert (
            shown.filter(unclicked)["extra"].to_list().__repr__()
            == rows.filter(unclicked)["extra"].to_list().__repr__()
        )
    assert files.experiment(max_bad_share=0.9).clicks == CLICKS


def test_messages_are_bounded(files: Log) -> None:
    long = "x" * 100_000
    files.put("a.csv", as_csv([{**row, "clicked": long} for row in log()]))
    assert all(len(message) < 2000 for message in files.refusals())
    files.put("a.csv", ",".join(f"column{number}{long}" for number in range(100)) + "\n" + ",".join("1" * 100) + "\n")
    assert all(len(message) < 2500 for message in files.refusals())

"""Properties of whole logs: order, files and formats change no byte; no click is lost; no content breaks a command."""

import csv
import gzip
import io
import json
import random
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.contracts.schema import ITEMS
from prectr.core.errors import PrectrError
from prectr.data import spill
from prectr.data.config import ValidateConfig
from prectr.data.reading import columnar, delimited, json_lines
from prectr.data.reading.reader import read_table
from prectr.data.tables import Tables
from prectr.data.validate import validate_tables
from prectr.evaluation.experiments.config import ExperimentConfig
from prectr.evaluation.experiments.exposures import read_experiment

Row = dict[str, Any]
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
LOOSE = ValidateConfig(max_bad_share=1, allow_no_clicks=True)
WORDS = st.sampled_from(["lamp", "blue lamp", "Lampe, groß", 'say "lamp"', "鞋", "007", "1.50", "true", "a\nb", "null"])


def _rows(kind: str, rows: list[Row]) -> list[Row]:
    """Rows with their times as a format holds them."""
    if kind == "parquet":
        return rows
    return [
        {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
        for row in rows
    ]


def _content(kind: str, rows: list[Row], shuffle: random.Random) -> bytes:
    """A file of rows, with its columns in any order."""
    columns = list(rows[0])
    shuffle.shuffle(columns)
    if kind == "parquet":
        out = io.BytesIO()
        frame = pl.DataFrame(rows, infer_schema_length=None).select(columns)
        frame.with_columns(pl.col(pl.Datetime).dt.convert_time_zone("Europe/Berlin")).write_parquet(out)
        return out.getvalue()
    text = io.StringIO(newline="")
    if kind.startswith("jsonl"):
        text.write("".join(json.dumps({name: row[name] for name in columns}) + "\n" for row in _rows(kind, rows)))
    else:
        writer = csv.DictWriter(text, columns, lineterminator=shuffle.choice(["\n", "\r\n"]))
        writer.writeheader()
        writer.writerows(_rows(kind, rows))
    content = text.getvalue().encode()
    return gzip.compress(content) if kind.endswith(".gz") else content


KINDS = ["csv", "csv.gz", "jsonl", "jsonl.gz", "parquet"]


def _write(root: Path, tables: dict[str, list[Row]], shuffle: random.Random) -> None:
    """Write the tables below `root`, their rows in any order and split over any files of any format."""
    for table, rows in tables.items():
        rows = rows.copy()
        shuffle.shuffle(rows)
        (root / table).mkdir(parents=True)
        number = 0
        while rows:
            count = shuffle.randint(1, len(rows))
            kind = shuffle.choice(KINDS)
            (root / table / f"{number:03d}.{kind}").write_bytes(_content(kind, rows[:count], shuffle))
            rows, number = rows[count:], number + 1


def _published(out: Path) -> dict[str, bytes]:
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*.parquet"))}


MAYBE = st.none() | WORDS
SHOWN = st.fixed_dictionaries(
    {
        "request_id": st.sampled_from(["1", "02", "3"]),
        "user_id": st.sampled_from(["u", "v"]),
        "ts": st.integers(0, 50 * 60 * 12).map(lambda number: NOON + timedelta(seconds=6 * number)),
        "query": WORDS,
        "item_id": st.sampled_from(["1", "02", "3", "unknown"]),
        "position": st.integers(0, 3),
        "clicked": st.booleans(),
        "price": st.sampled_from([None, 1.5, 2.0]),
        "page": MAYBE,
    }
)
LOGS = st.fixed_dictionaries(
    {
        "items": st.lists(
            st.fixed_dictionaries(
                {"item_id": st.sampled_from(["1", "02", "3"]), "title": WORDS, "brand": MAYBE, "hue": MAYBE}
            ),
            min_size=1, max_size=6,
        ),
        "impressions": st.lists(SHOWN, min_size=1, max_size=30),
        "candidates": st.lists(
            SHOWN.map(lambda row: {name: row[name] for name in row if name not in ("position", "clicked", "price")}),
            min_size=1, max_size=8,
        ),
        "judgments": st.lists(
            st.fixed_dictionaries(
                {"query": WORDS, "item_id": st.sampled_from(["1", "02"]), "grade": st.integers(0, 3), "note": MAYBE}
            ),
            min_size=1, max_size=8,
        ),
    }
)  # fmt: skip


@settings(max_examples=30)
@given(tables=LOGS, seed=st.integers(0, 2**32))
def test_order_files_and_formats_change_no_byte(
    tables: dict[str, list[Row]], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root, shuffle = tmp_path_factory.mktemp("bytes"), random.Random(seed)
    for unit in (spill.UNIT_ROWS, 5):
        found: list[Any] = []
        for copy in range(2):
            _write(root / f"{unit}-{copy}", tables, shuffle)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(spill, "UNIT_ROWS", unit)
                if copy:
                    patch.setattr(delimited, "BLOCK_BYTES", 200)
                    patch.setattr(json_lines, "BLOCK_BYTES", 200)
                    patch.setattr(columnar, "CHUNK_ROWS", 3)
                out = root / f"out-{unit}-{copy}"
                try:
                    result = validate_tables(root / f"{unit}-{copy}", out, LOOSE).manifest
                except PrectrError as error:  # e.g. all rows are bad
                    assert "are bad" in str(error)
                    found.append(None)
                    continue
            found.append(({name: result[name] for name in ("rows", "merged", "quarantined")}, _published(out)))
        assert found[0] == found[1]


EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "request": st.integers(0, 3),
            "item_id": st.sampled_from(["1", "02", "3", "unknown"]),
            "seconds": st.integers(0, 1800),
            "position": st.integers(0, 3),
            "clicked": st.booleans(),
            "purchased": st.sampled_from([None, True, False]),
        }
    ),
    min_size=1, max_size=40,
)  # fmt: skip


@settings(max_examples=60)
@given(events=EVENTS, seed=st.integers(0, 2**32))
def test_a_click_is_never_lost(events: list[Row], seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    root, shuffle = tmp_path_factory.mktemp("clicks"), random.Random(seed)
    items = [{"item_id": item, "title": f"title {item}"} for item in ("1", "02", "3")]
    midnight = NOON.replace(hour=0) - timedelta(minutes=10)  # requests begin before and end after it
    rows = [
        {
            "request_id": f"r{event['request']}",
            "user_id": "u",
            "query": "q",
            "ts": midnight + timedelta(seconds=event["seconds"]),
        }
        | {name: event[name] for name in ("item_id", "position", "clicked", "purchased")}
        for event in events
    ]
    good = [row for row in rows if row["item_id"] != "unknown" and row["position"] > 0]
    _write(root / "log", {"items": items, "impressions": rows}, shuffle)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spill, "UNIT_ROWS", shuffle.choice([3, 10**6]))
        if not good:
            with pytest.raises(PrectrError, match="are bad"):
                validate_tables(root / "log", root / "out", LOOSE)
            return
        manifest = validate_tables(root / "log", root / "out", LOOSE).manifest
    shown = pl.read_parquet(root / "out" / "impressions" / "**/*.parquet", hive_partitioning=False)
    key = {(row["request_id"], row["item_id"]) for row in good}
    assert set(shown.select("request_id", "item_id").rows()) == key and shown.height == len(key)
    for name in ("clicked", "purchased"):
        wanted = {(row["request_id"], row["item_id"]) for row in good if row[name]}
        assert set(shown.filter(name).select("request_id", "item_id").rows()) == wanted
    merged = sum(manifest["merged"].get("impressions", {}).values())
    bad = sum(manifest["quarantined"]["impressions"].values())
    assert manifest["clicks"] == shown["clicked"].sum() and shown.height + merged + bad == len(rows)
    assert shown.group_by("request_id").agg(pl.col("ts").n_unique())["ts"].max() == 1


@cache
def _sound(kind: str, count: int = 6) -> bytes:
    rows = [
        {"request_id": f"r{number}", "user_id": "u", "ts": NOON, "query": "q", "item_id": "1", "position": 1,
         "clicked": True, "tags": ["x"], "title": "t"}
        for number in range(count)
    ]  # fmt: skip
    if "csv" in kind:
        rows = [{**row, "tags": '"x, y"'} for row in rows]
    return _content(kind, rows, random.Random(0))


@st.composite
def _broken(draw: st.DrawFn) -> tuple[str, bytes]:
    """A kind of file, and bytes that are nearly or not at all of this kind."""
    kind = draw(st.sampled_from(KINDS))
    if draw(st.integers(0, 3)) == 0:
        return kind, draw(st.binary(max_size=200))
    content = bytearray(_sound(draw(st.sampled_from([kind] * 5 + KINDS))))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        change = draw(st.sampled_from(["cut", "flip", "insert", "drop", "twice"]))
        if change == "cut":
            del content[place:]
        elif change == "flip" and content:
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif change == "insert":
            content[place:place] = draw(
                st.sampled_from([b'"', b"\n", b"\0", b"\xff", b",", b"{", b"\r", b"\\u0000", b"\x1f"])
            )
        elif change == "drop":
            del content[place : place + draw(st.integers(1, 20))]
        else:
            content += content[place:]
    return kind, bytes(content)


@settings(max_examples=150)
@given(made=_broken())
def test_no_content_of_a_file_breaks_a_command(
    made: tuple[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each gives a result or an error in words of ours, within bounds."""
    kind, content = made
    root = tmp_path_factory.mktemp("broken")
    for table in ("items", "impressions"):
        (root / "log" / table).mkdir(parents=True)
        (root / "log" / table / f"sound.{'csv' if table == 'items' else 'parquet'}").write_bytes(
            b"item_id,title\n1,lamp\n" if table == "items" else _sound("parquet", 60)
        )
    (root / "log" / "impressions" / f"odd.{kind}").write_bytes(content)
    (root / "assignment.csv").write_text("user_id,variant\nu,a\nv,b\n")
    (root / f"odd.{kind}").write_bytes(content)
    runs = [
        lambda: validate_tables(root / "log", root / "out", LOOSE),
        lambda: read_experiment(root / "log", root / "assignment.csv", None, ExperimentConfig(control="a"), LOOSE),
        lambda: read_table(root / f"odd.{kind}", ITEMS, LOOSE, limit=1),
    ]
    for run in runs:
        try:
            run()  # type: ignore[no-untyped-call]
        except PrectrError as error:
            message = str(error).replace(str(root), "")
            assert len(message) < 4000 and not any(
                word in message for word in ("polars", "arrow", "Error", "Traceback")
            )
    if (root / "out").exists():
        assert Tables(root / "out").impressions().height >= 60

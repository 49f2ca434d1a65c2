"""JSON lines: keys in any line, ids as they are written, and lines that hold no row."""

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.core.errors import PrectrError
from prectr.data.config import ValidateConfig
from prectr.data.reading import delimited, json_lines
from prectr.data.reading.bad_rows import ROW, BadRows
from prectr.data.reading.files import Layout
from prectr.data.reading.reader import Reader

NO_ROW = [
    ('{"a": 1', json_lines.NO_OBJECT),
    ("[1, 2]", json_lines.NO_OBJECT),
    ("7", json_lines.NO_OBJECT),
    ("null", json_lines.NO_OBJECT),
    ("a,b", json_lines.NO_OBJECT),
    ('{"a": 1} {"a": 2}', json_lines.NO_OBJECT),
    ('{"a": NaN}', json_lines.NO_OBJECT),
    ('{"a": "\0"}', delimited.NUL_BYTE),
    ('{"a": "\\u0000"}', delimited.NUL_BYTE),
    ('{"a": "\\ud83d"}', delimited.NOT_TEXT),
    ('{"a": "\udcff"}', delimited.NOT_TEXT),
]


def _read(
    file: Path, columns: list[str], optional: tuple[str, ...] = ()
) -> tuple[list[Any], list[int], list[tuple[str, str]]]:
    bad = BadRows(None)
    frames = list(Reader(bad, ValidateConfig()).chunks(file, columns, optional=optional))
    rows = [
        row for frame in frames for row in frame.select(*columns, *[name for name in optional if name in frame]).rows()
    ]
    found = sorted((example.place, reason) for (_, reason), examples in bad.examples.items() for example in examples)
    return rows, [place for frame in frames for place in frame[ROW].to_list()], found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


def test_keys_may_come_late_and_may_be_left_out(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "BLOCK_BYTES", 20)
    lines = [{"a": str(number)} for number in range(300)] + [{"b": 2, "a": "300"}, {"a": None}, {}]
    file.write_text("\n".join(json.dumps(line) for line in lines))
    rows, places, bad = _read(file, ["a"], ("b",))
    assert rows == [*((str(number), None) for number in range(300)), ("300", "2"), (None, None), (None, None)]
    assert places == list(range(1, 304)) and not bad


def test_values_are_texts_as_they_are_written(file: Path) -> None:
    file.write_text(
        '{"a": "007"}\n{"a": 12345678901234567890123}\n{"a": 7}\n{"a": "é\\n\\"x\\""}\n{"a": true}\n{"a": ""}\n'
    )
    assert [row[0] for row in _read(file, ["a"])[0]] == ["007", "12345678901234567890123", "7", 'é\n"x"', "true", ""]


@pytest.mark.parametrize(("line", "reason"), NO_ROW)
@pytest.mark.parametrize("good", [0, 2])
def test_a_line_that_holds_no_row_is_set_aside_alone(file: Path, line: str, reason: str, good: int) -> None:
    text = "".join(['{"a": "x"}\n'] * good + [line + "\n"] + ['{"a": "y"}\n'] * good)
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    rows, places, bad = _read(file, ["a"])
    assert rows == [("x",)] * good + [("y",)] * good
    assert bad == [(f"line {good + 1}", reason)] and good + 1 not in places


def test_blank_lines_byte_order_marks_and_compression(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf\r\n{"a": 1}\r\n\n  \n{"a": 2}'
    (tmp_path / "a.json").write_bytes(content)
    (tmp_path / "a.JSONL.GZ").write_bytes(gzip.compress(content))
    for name in ("a.json", "a.JSONL.GZ"):
        assert _read(tmp_path / name, ["a"]) == ([("1",), ("2",)], [2, 5], [])


def test_emoji_and_escapes_are_text(file: Path) -> None:
    texts = ["🙂 é", "\\u0000 as it is written", 'a "quote"', "\u200b"]
    file.write_text(
        "".join(json.dumps({"a": text}, ensure_ascii=ascii) + "\n" for text in texts for ascii in (True, False))
    )
    assert [row[0] for row in _read(file, ["a"])[0]] == [text for text in texts for _ in range(2)]


def test_a_missing_column_and_a_file_of_nothing(file: Path) -> None:
    file.write_text('{"aa": 1}\n')
    with pytest.raises(PrectrError, match=r"log\.jsonl: column 'a' is missing\. Did you mean 'aa'\?"):
        _read(file, ["a"])
    file.write_text("{}\n")
    with pytest.raises(PrectrError, match=r"column 'a' is missing\. The file has: no columns"):
        _read(file, ["a"])
    for content in ("", "\n \n"):
        file.write_text(content)
        assert _read(file, ["a"]) == ([], [], [])


def test_types_come_from_all_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "BLOCK_BYTES", 60)
    lines = [{"n": number, "t": number, "x": None, "l": [1]} for number in range(40)] + [
        {"n": 0.5, "t": "é", "l": ["b"]}
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    bad = BadRows(None)
    reader = Reader(bad, ValidateConfig())
    files = [(tmp_path / "a.jsonl", Layout("jsonl"))]
    types = reader.types_of(files)
    assert types == {"n": pl.Float64(), "t": pl.String(), "x": pl.String(), "l": pl.List(pl.String())}
    frame = pl.concat(reader.chunks(tmp_path / "a.jsonl", [], others=types))
    assert frame["n"].to_list() == [*map(float, range(40)), 0.5] and frame["t"].to_list()[-2:] == ["39", "é"]
    assert frame["l"].to_list()[-2:] == [["1"], ["b"]] and not bad.count


def test_a_column_that_is_a_list_in_one_file_and_a_text_in_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"tags": ["x"]}\n')
    (tmp_path / "b.jsonl").write_text('{"tags": "x"}\n')
    files = [(tmp_path / name, Layout("jsonl")) for name in ("a.jsonl", "b.jsonl")]
    with pytest.raises(
        PrectrError, match=r"b\.jsonl: the column 'tags' is of the type a value, but a list in .*a\.jsonl"
    ):
        Reader(BadRows(None), ValidateConfig()).types_of(files)


@pytest.mark.parametrize(
    "lines", ['{"a": [1]}\n{"a": "x"}\n', '{"a": {"x": 1}}\n{"a": 2}\n', '{"a": {"x": 1}}\n{"a": [2]}\n']
)
def test_a_known_column_may_mix_values_of_all_kinds(file: Path, lines: str) -> None:
    """It is read as text; another column of such a mixture is read as JSON or refused in words of ours."""
    file.write_text(lines)
    assert len(_read(file, ["a"])[0]) == 2
    try:
        Reader(BadRows(None), ValidateConfig()).types_of([(file, Layout("jsonl"))])
    except PrectrError as error:
        assert ("log.jsonl" in str(error) and "list" in str(error)) or "object" in str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xy"), inner, max_size=2),
    max_leaves=4,
)

LINES = st.dictionaries(st.sampled_from("abc"), JSON, max_size=3) | st.sampled_from([*dict(NO_ROW)])


@settings(max_examples=200)
@given(
    lines=st.lists(LINES, max_size=8),
    block=st.sampled_from([1, 40, 10**6]),
)
def test_every_line_is_a_row_or_set_aside(
    lines: list[Any], block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("json") / "log.jsonl"
    texts = [line if isinstance(line, str) else json.dumps({"k": "", **line}) for line in lines]
    file.write_bytes("\n".join(texts).encode("utf-8", "surrogateescape"))
    bad = BadRows(None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "BLOCK_BYTES", block)
        frames = list(Reader(bad, ValidateConfig()).chunks(file, [], optional=["k", "a"]))
    good = [
        number
        for number, line in enumerate(lines, start=1)
        if isinstance(line, dict) and "\\u0000" not in json.dumps(line).replace("\\\\", "")
    ]
    assert [place for frame in frames for place in frame[ROW].to_list()] == good
    assert bad.count == len(lines) - len(good)

"""CSV: what is a record, which lines hold no row, and that no dialect, block border or text changes what is read."""

import csv
import gzip
import io
import random
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.core.errors import PrectrError
from prectr.data.config import ValidateConfig
from prectr.data.reading import delimited
from prectr.data.reading.bad_rows import FILE, ROW, BadRows
from prectr.data.reading.files import Layout
from prectr.data.reading.reader import Reader

HEADER = "a,b,c,d\n"
Bad = list[tuple[int, str]]


def read(
    file: Path, layout: Layout | None = None, multiline: bool = False, columns: str = "abcd"
) -> tuple[list[tuple[str | None, ...]], list[int], Bad]:
    """Rows, their lines, and the lines that hold none with the reasons."""
    bad = BadRows(None)
    frames = list(Reader(bad, ValidateConfig(multiline_fields=multiline)).chunks(file, list(columns), layout))
    frames.append(pl.DataFrame(schema={**dict.fromkeys(columns, pl.String), ROW: pl.Int64, FILE: pl.String}))
    frame = pl.concat(frames, how="diagonal_relaxed")
    examples = [(int(example.place.removeprefix("line ").replace(",", "")), reason)
                for (_, reason), found in bad.examples.items() for example in found]  # fmt: skip
    assert bad.count == bad.rows[""]
    return frame.select(list(columns)).rows(), frame[ROW].to_list(), sorted(examples)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log.csv"


def _text(file: Path, lines: str, **options: object) -> tuple[list[tuple[str | None, ...]], list[int], Bad]:
    file.write_bytes((HEADER + lines).encode())
    return read(file, **options)  # type: ignore[arg-type]


def test_a_quote_that_opens_a_field_by_mistake_costs_its_line_only(file: Path) -> None:
    lines = '1,x,y,z\n2,"blue lamp,y,z\n3,x,y,z\n4,x,y,z\n5,"red lamp,y,z\n6,x,y,z\n'
    rows, places, bad = _text(file, lines)
    assert [row[0] for row in rows] == ["1", "3", "4", "6"] and places == [2, 4, 5, 7]
    assert [line for line, _ in bad] == [3, 6]
    assert bad[0][1] in (delimited.SEPARATORS_AND_LINE_ENDS, delimited.AFTER_QUOTE)
    assert bad[1][1] == delimited.UNCLOSED


def test_text_after_a_closing_quote_costs_its_line_only(file: Path) -> None:
    rows, places, bad = _text(file, '1,"x" y,y,z\n2,"x",y,z\n3,"x"";""y",y,z\n')
    assert rows == [("2", "x", "y", "z"), ("3", 'x";"y', "y", "z")] and places == [3, 4]
    assert bad == [(2, delimited.AFTER_QUOTE)]


def test_quotes_inside_a_field_that_begins_without_one_are_characters(file: Path) -> None:
    rows, _, bad = _text(file, '1,19" rack,5\' 9",z\n2,"19"" rack",""""," "\n')
    assert rows == [("1", '19" rack', "5' 9\"", "z"), ("2", '19" rack', '"', " ")] and not bad


def test_separators_or_line_ends_in_a_quoted_field(file: Path) -> None:
    rows, places, bad = _text(file, '1,"x,y",y,z\n2,"x\ny",y,z\n3,"x\r\ny",y,z\n4,x,y,z\n')
    assert [row[1] for row in rows] == ["x,y", "x\ny", "x\r\ny", "x"]
    assert places == [2, 3, 5, 7] and not bad


def test_separators_and_line_ends_in_a_quoted_field_need_a_setting(file: Path) -> None:
    lines = '1,"x, y,\nz, w",y,z\n2,x,y,z\n'  # the second line looks like a row of four fields
    rows, places, bad = _text(file, lines)
    assert rows == [("2", "x", "y", "z")] and places == [4]
    assert bad == [(2, delimited.SEPARATORS_AND_LINE_ENDS), (3, delimited.IN_BAD_FIELD)]
    rows, places, bad = _text(file, lines, multiline=True)
    assert rows == [("1", "x, y,\nz, w", "y", "z"), ("2", "x", "y", "z")] and places == [2, 4] and not bad


def test_rows_that_a_quote_swallows_up_to_the_next_one_are_read(file: Path) -> None:
    lines = '1,"blue lamp,y,z\n2,x,y,z\n3,x,y,z\n4,red lamp",y,z\n5,x,y,z\n'
    rows, _, bad = _text(file, lines)
    assert [row[0] for row in rows] == ["2", "3", "4", "5"]
    assert bad == [(2, delimited.SEPARATORS_AND_LINE_ENDS)]


@pytest.mark.parametrize("cut", ["3,x", "3,x,y,", '3,"x', '3,x,y,"z', "3"])
def test_a_last_line_that_is_cut(file: Path, cut: str) -> None:
    """A cut is seen if fields are missing or a quote is open; `3,x,y,` may be whole."""
    rows, _, bad = _text(file, f"1,x,y,z\n2,x,y,z\n{cut}")
    if cut == "3,x,y,":
        assert rows[2:] == [("3", "x", "y", None)] and not bad
    else:
        assert len(rows) == 2 and [line for line, _ in bad] == [4]


def test_a_last_line_without_a_line_end_is_whole(file: Path) -> None:
    for quoted in ("3,x,y,z", '3,x,y,"z"'):
        rows, _, bad = _text(file, f"1,x,y,z\n{quoted}")
        assert rows[1] == ("3", "x", "y", "z") and not bad


def test_nul_bytes_and_other_encodings_cost_their_lines_only(file: Path) -> None:
    file.write_bytes(HEADER.encode() + b"1,x,y,z\n2,\0\0,y,z\n3,caf\xe9,y,z\n4,caf\xc3\xa9,y,z\n")
    rows, places, bad = read(file)
    assert rows == [("1", "x", "y", "z"), ("4", "café", "y", "z")] and places == [2, 5]
    assert bad == [(3, delimited.NUL_BYTE), (4, delimited.NOT_TEXT)]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le-mark", "utf-16-be-mark"])
def test_a_byte_order_mark_tells_the_encoding(file: Path, encoding: str) -> None:
    text = HEADER + "01,café,y,z\n"
    mark = "\ufeff" if encoding.endswith("-mark") else ""
    file.write_bytes((mark + text).encode(encoding.removesuffix("-mark")))
    assert read(file) == ([("01", "café", "y", "z")], [2], [])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end(file: Path, end: str) -> None:
    file.write_bytes(end.join(["a,b,c,d", "1,x,y,z", "2,x,y,", ""]).encode())
    assert read(file) == ([("1", "x", "y", "z"), ("2", "x", "y", None)], [2, 3], [])


def test_blank_lines_hold_nothing_and_count_as_lines(file: Path) -> None:
    rows, places, bad = _text(file, "\n1,x,y,z\n\n\r\n2,x,y,z\n\n")
    assert [row[0] for row in rows] == ["1", "2"] and places == [3, 6] and not bad


def test_a_line_of_empty_fields_is_a_row(file: Path) -> None:
    file.write_bytes(b'a\tb\n1\t"2"\n\t\n  \n"3"\t4\n')
    rows, places, bad = read(file, Layout("csv", separator="\t"), columns="ab")
    assert rows == [("1", "2"), (None, None), ("3", "4")] and places == [2, 3, 5] and not bad


def test_too_few_and_too_many_fields(file: Path) -> None:
    rows, _, bad = _text(file, "1,x,y,z\n2,x,y\n3,x,y,z,w\n4,x,y,z\n")
    assert [row[0] for row in rows] == ["1", "4"]
    assert [line for line, _ in bad] == [3, 4]
    assert all("fields, not 4 as the header" in reason for _, reason in bad)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("block", range(1, 40))
def test_no_block_border_changes_what_is_read(
    file: Path, monkeypatch: pytest.MonkeyPatch, block: int, end: str
) -> None:
    monkeypatch.setattr(delimited, "BLOCK_BYTES", block)
    monkeypatch.setattr(delimited, "LINE_BYTES", 1000)
    text = end.join(["a,b,c,d", "1,x,y,z", f'2,"x{end}y",é,z', '3,"x""","",', "4,x", "5,x,y,z", '6,"x,y",y,"z"', ""])
    file.write_bytes(text.encode())
    expected = [
        ("1", "x", "y", "z"), ("2", f"x{end}y", "é", "z"), ("3", 'x"', None, None), ("5", "x", "y", "z"),
        ("6", "x,y", "y", "z"),
    ]  # fmt: skip
    assert read(file) == (expected, [2, 3, 5, 7, 8], [(6, "the line has 2 fields, not 4 as the header")])


def test_a_long_field_whose_quote_never_closes_swallows_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "RECORD_BYTES", 200)
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 64)
    good = [f"{number},x,y,z\n" for number in range(200)]
    rows, _, bad = _text(file, "".join([*good[:50], '999,"x,y,z\n', *good[50:]]))
    assert [row[0] for row in rows] == [str(number) for number in range(200)]
    assert bad == [(52, delimited.UNCLOSED)]


def test_a_header_is_needed_and_named_once(file: Path) -> None:
    for content in (b'"a,b\n1,2\n', b"a\0,b\n1,2\n", b"\xff,b\n1,2\n"):
        file.write_bytes(content)
        with pytest.raises(PrectrError, match=r"log\.csv: cannot be read as CSV .*its first line, the header"):
            read(file, columns="a")
    file.write_bytes(b"a,b,a\n1,2,3\n")
    with pytest.raises(PrectrError, match="its header names the column 'a' 2 times"):
        read(file, columns="a")
    assert read(file, columns="b")[0] == [("2",)]


def test_a_file_of_nothing_or_of_a_header_has_no_rows(file: Path) -> None:
    for content in (b"", b"\n", b"a,b,c,d", b"a,b,c,d\n", b"\xef\xbb\xbf", b"\xff\xfe", b"a,b,c,d\r\n\r\n"):
        file.write_bytes(content)
        assert read(file) == ([], [], [])


def test_one_column_may_hold_blank_lines_of_text(file: Path) -> None:
    file.write_bytes(b'a\nx\n" "\n\n""\ny\n')
    rows, places, bad = read(file, columns="a")
    assert rows == [("x",), (" ",), (None,), ("y",)] and places == [2, 3, 5, 6] and not bad


ALPHABET = st.sampled_from(["a", "Z", "0", " ", '"', "'", ",", ";", "\t", "|", "é", "ß", "\n", "\r\n", "-", "\u00a0"])
WIDE = st.sampled_from(["鞋", "🙂", "\u200b", "ΐ", "a", '"', ",", "\n", " "])
"""Characters that latin-1 lacks."""


def _fields(encoding: str) -> st.SearchStrategy[str]:
    alphabet = ALPHABET if encoding == "latin-1" else st.one_of(ALPHABET, WIDE)
    texts = st.lists(alphabet, max_size=8).map("".join)
    return texts.filter(lambda text: text.count("\n") < delimited.SWALLOWED_LINES)


@st.composite
def _files(draw: st.DrawFn) -> tuple[list[list[str]], Layout, bytes]:
    """A table of texts, and the file of a random dialect that holds it."""
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    separator = draw(st.sampled_from([",", ";", "\t", "|"]))
    width = draw(st.integers(1, 5))
    rows = draw(st.lists(st.lists(_fields(encoding), min_size=width, max_size=width), min_size=1, max_size=12))
    style = draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]))
    out = io.StringIO(newline="")
    end = draw(st.sampled_from(["\n", "\r\n"]))
    csv.writer(out, delimiter=separator, lineterminator=end, quoting=style).writerows(
        [[f"n{number}" for number in range(width)], *rows]
    )
    content = out.getvalue().encode(encoding)
    compression = draw(st.sampled_from([None, "gzip"]))
    layout = Layout("csv", compression, separator, encoding="utf-8" if "16" in encoding else encoding)
    return rows, layout, gzip.compress(content) if compression else content


def _chunk(monkeypatch: pytest.MonkeyPatch, file: Path, seed: int) -> None:
    monkeypatch.setattr(delimited, "BLOCK_BYTES", random.Random(seed).choice([4, 17, 64, 10**6]))
    monkeypatch.setattr(delimited, "LINE_BYTES", 10**6)


@settings(max_examples=400)
@given(made=_files(), seed=st.integers(0, 3))
def test_every_dialect_reads_as_the_parquet_file_of_its_table(
    made: tuple[list[list[str]], Layout, bytes], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With `multiline_fields` every row is read; without, a row is read as it is or its lines are set aside."""
    rows, layout, content = made
    folder = tmp_path_factory.mktemp("dialect")
    (folder / "t.csv").write_bytes(content)
    names = [f"n{number}" for number in range(len(rows[0]))]
    pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row").with_columns(
        pl.when(pl.all() != "").then(pl.all())
    ).write_parquet(folder / "t.parquet")
    wanted = next(Reader(BadRows(None), ValidateConfig()).chunks(folder / "t.parquet", names)).select(names).rows()
    with pytest.MonkeyPatch.context() as patch:
        _chunk(patch, folder, seed)
        for multiline in (True, False):
            bad = BadRows(None)
            reader = Reader(bad, ValidateConfig(multiline_fields=multiline))
            found = [
                row for frame in reader.chunks(folder / "t.csv", names, layout) for row in frame.select(names).rows()
            ]
            if multiline:
                assert found == wanted and not bad.count
            else:
                later = iter(wanted)
                assert all(any(row == other for other in later) for row in found), "a row was misread"
                assert len(found) == len(wanted) or bad.count

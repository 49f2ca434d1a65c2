"""JSON lines, a block of lines at a time. Columns of a known kind are read as text: no digit of an id is lost."""

import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import polars as pl

from prectr.data.reading.bad_rows import ROW, BadLine
from prectr.data.reading.delimited import BLOCK_BYTES, NOT_TEXT, NUL_BYTE, Piece

NO_OBJECT = "the line is not a JSON object"
_HIGH, _LOW = rb"\\u[dD][89abAB][0-9a-fA-F]{2}", rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_ODD_ESCAPE = re.compile(rb"\\u0000|" + _HIGH + rb"(?!" + _LOW + rb")|(?<!" + _HIGH + rb")" + _LOW)
"""What may be the escape of NUL, or one half of a character that takes two; polars takes such a half for NUL."""


def read_json_lines(stream: BinaryIO, schema: dict[str, pl.DataType]) -> Iterator[Piece]:
    """Read columns of a file of JSON lines.

    Args:
        stream: the bytes of the file, decompressed, in UTF-8.
        schema: name -> type of the columns to read. As text, a number keeps its digits, and an object or a list is
            JSON. A key that a line lacks is null.
    """
    line = 1
    while block := _whole_lines(stream):
        block = block.removeprefix(b"\xef\xbb\xbf") if line == 1 else block
        yield _read(block, line, schema)
        line += block.count(b"\n")


def column_types(stream: BinaryIO) -> list[dict[str, pl.DataType]]:
    """Types of all columns, as inferred from all lines, block by block, or by line where a block's lines differ."""
    types: list[dict[str, pl.DataType]] = []
    while block := _whole_lines(stream):
        good, _ = _good_lines(block.removeprefix(b"\xef\xbb\xbf"), 1, {})
        if good:
            try:
                types.append(_inferred(b"\n".join(text for _, text in good)))
            except pl.exceptions.PolarsError:  # e.g. a list in one line and a text in another
                types += [_types_of_line(text) for _, text in good]
    return types


def _types_of_line(line: bytes) -> dict[str, pl.DataType]:
    """Types of one line's columns; text for a value such as a list of a number and a list, which has no type."""
    types: dict[str, pl.DataType] = {}
    for name, value in json.loads(line).items():
        try:
            types |= _inferred(json.dumps({name: value}).encode())
        except pl.exceptions.PolarsError:
            types[name] = pl.String()
    return types


def _inferred(lines: bytes) -> dict[str, pl.DataType]:
    return dict(pl.read_ndjson(io.BytesIO(lines), infer_schema_length=None).schema)


def _read(block: bytes, line: int, schema: dict[str, pl.DataType]) -> Piece:
    if schema and _is_plain(block):  # without a schema polars looks at no line
        try:
            frame = pl.read_ndjson(io.BytesIO(block), schema=schema)
            if frame.height == block.count(b"\n") + (not block.endswith(b"\n")):
                return Piece(_placed(frame, range(line, line + frame.height)), [])
        except pl.exceptions.PolarsError:
            pass
    good, bad = _good_lines(block, line, schema)
    places = [number for number, _ in good]
    if not good:
        return Piece(_placed(pl.DataFrame(schema=schema), places), bad)
    frame = pl.read_ndjson(io.BytesIO(b"\n".join(text for _, text in good)), schema=schema)
    return Piece(_placed(frame, places), bad)


def _is_plain(block: bytes) -> bool:
    """Whether each line of a block is surely one that polars reads as json does, if it reads it."""
    has_blanks = b"\n\n" in block or b"\n\r\n" in block or block.startswith((b"\n", b"\r"))
    return not has_blanks and b"\0" not in block and not (b"\\u" in block and _ODD_ESCAPE.search(block))


def _placed(frame: pl.DataFrame, places: Sequence[int]) -> pl.DataFrame:
    return frame.with_columns(pl.Series(ROW, places, pl.Int64))


def _good_lines(
    block: bytes, line: int, schema: dict[str, pl.DataType]
) -> tuple[list[tuple[int, bytes]], list[BadLine]]:
    """Lines that are JSON objects, with their numbers, and the others. Blank lines are neither."""
    good: list[tuple[int, bytes]] = []
    bad: list[BadLine] = []
    for number, raw in enumerate(block.split(b"\n"), start=line):
        text = raw.strip()
        fault = _fault(text) if text else None
        if fault is not None:
            bad.append(BadLine(number, fault, text.decode(errors="replace")))
        elif text:
            good.append((number, text))
    if good and not _is_readable(b"\n".join(text for _, text in good), schema):  # polars is stricter than json
        odd = [(number, text) for number, text in good if not _is_readable(text, schema)]
        bad += [BadLine(number, NO_OBJECT, text.decode(errors="replace")) for number, text in odd]
        unreadable = {number for number, _ in odd}
        good = [entry for entry in good if entry[0] not in unreadable]
    return good, sorted(bad, key=lambda entry: entry.line)


def _fault(text: bytes) -> str | None:
    if b"\0" in text:
        return NUL_BYTE
    try:
        content: Any = json.loads(text)
    except UnicodeDecodeError:
        return NOT_TEXT
    except (ValueError, RecursionError):
        return NO_OBJECT
    if not isinstance(content, dict):
        return NO_OBJECT
    return _fault_of_escapes(content) if b"\\u" in text else None


def _fault_of_escapes(content: dict[str, Any]) -> str | None:
    """The fault of characters that are no text: NUL, and one half of a character that takes two escapes."""
    written = json.dumps(content, ensure_ascii=False)
    if "\\u0000" in written.replace("\\\\", ""):
        return NUL_BYTE
    try:
        written.encode()
    except UnicodeEncodeError:
        return NOT_TEXT
    return None


def _is_readable(lines: bytes, schema: dict[str, pl.DataType]) -> bool:
    try:
        pl.read_ndjson(io.BytesIO(lines), schema=schema or {"": pl.String()})
    except pl.exceptions.PolarsError:
        return False
    return True


def _whole_lines(stream: BinaryIO) -> bytes:
    """The next block, up to the end of a line."""
    return stream.read(BLOCK_BYTES) + stream.readline()
